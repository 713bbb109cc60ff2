"""Writing survives failures: old content or new, never a part; broken lines are named."""

import errno
import os
from pathlib import Path

import pytest

from stillroom import files
from stillroom.errors import DataError
from stillroom.files import (
    AppendOnly,
    disk_is_full,
    folder_atomic,
    no_space,
    numbered_lines,
    read_lines,
    sha256,
    write_atomic,
    write_json,
    write_lines,
)
from stillroom.records import Lesson

LESSON = Lesson(problem="a", prompt="Zoë\u2028", completion="<b>\n\x85")


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new content")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_all_of_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "x" * 1000)
    write_json(path, {"b": "é", "a": [1]})
    assert path.read_bytes() == '{\n "a": [\n  1\n ],\n "b": "é"\n}\n'.encode()
    assert sha256(path) == files.hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with pytest.raises(KeyError), folder_atomic(target) as folder:
        (folder / "half").write_text("x")
        assert not target.exists()
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with folder_atomic(target) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "whole").write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    assert (target / "deep" / "whole").read_text() == "x"


def test_records_come_back_from_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "lessons.jsonl"
    write_lines(path, [LESSON, LESSON.model_copy(update={"problem": "b"})])
    assert [lesson.problem for lesson in read_lines(path, Lesson)] == ["a", "b"]
    assert read_lines(path, Lesson)[0] == LESSON


def test_a_broken_line_is_named_with_its_number_and_field(tmp_path: Path) -> None:
    path = tmp_path / "lessons.jsonl"
    good = LESSON.model_dump_json()
    for broken, told in (('{"problem": "a", "prompt": "q"}', "completion"), (good[:-5], "JSON"), ("[]", "object")):
        path.write_text(f"{good}\n\n{broken}\n", encoding="utf-8")
        with pytest.raises(DataError, match=told) as caught:
            read_lines(path, Lesson)
        assert str(caught.value).startswith(f"{path}:3: ")


def test_lines_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  \n two \xc2\x85\xe2\x80\xa8x\nlast")
    assert list(numbered_lines(path)) == [(1, "one"), (4, "two \x85\u2028x"), (5, "last")]
    path.write_bytes(b"fine\nnot \xff\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: not UTF-8"):
        list(numbered_lines(path))
    with pytest.raises(DataError, match=r"missing\.jsonl: cannot be read .*; fetch it"):
        list(numbered_lines(tmp_path / "missing.jsonl", "fetch it"))


def test_a_table_keeps_whole_lines_and_drops_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    with AppendOnly(path) as table:
        assert table.lines == []
        table.append(["one", "zwei ß"])
        assert path.read_text() == "one\t7a6c86f1\nzwei ß\t6c85616e\n"  # durable before the block ends
        table.append([])
    with path.open("ab") as file:
        file.write("to\u00dfrn".encode()[:-3])
    with AppendOnly(path) as table:
        assert table.lines == ["one", "zwei ß"]
        table.append(["three"])
    assert path.read_text() == "one\t7a6c86f1\nzwei ß\t6c85616e\nthree\t46c5d8f5\n"


def test_a_line_of_a_table_ends_at_its_line_feed_alone(tmp_path: Path) -> None:
    with AppendOnly(tmp_path / "t") as table:
        table.append([LESSON.model_dump_json()])
    with AppendOnly(tmp_path / "t") as table:
        assert [Lesson.model_validate_json(line) for line in table.lines] == [LESSON]


def test_a_full_disk_is_told_with_what_was_lost() -> None:
    assert "holds /stills is full: student normal was not committed" in str(no_space(Path("/stills"), "student normal"))
    assert disk_is_full(OSError(errno.ENOSPC, "x"))
    assert disk_is_full(OSError(errno.EDQUOT, "x"))
    assert not disk_is_full(OSError(errno.EIO, "x"))


def test_a_ring_of_links_is_an_error_of_the_disk_s(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    write_atomic(tmp_path / "a", "whole")
    assert (tmp_path / "a").read_text() == "whole"


def test_a_link_keeps_its_place_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    write_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, "said")
    assert os.read(reader, 10) == b"said"
    os.close(reader)
    assert pipe.is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe", "target"]
