"""A faulty file is named with its line; a question that stands twice is kept once, and what is tested wins."""

from pathlib import Path

import pytest

from benchmark_rows import line
from stillroom.errors import DataError
from stillroom.tasks.benchmarks.reading import read_splits


def row(name: str, **changes: object) -> str:
    return line("svamp", **{"ID": name, "Body": f"{name} had 4 eggs.", **changes})


def read(folder: Path, train: list[str] | bytes, test: str = "") -> object:
    content = train if isinstance(train, bytes) else "\n".join(train).encode()
    (folder / "train.jsonl").write_bytes(content)
    (folder / "test.jsonl").write_text(test or row("t-1"))
    return read_splits("svamp", {"train": folder / "train.jsonl", "test": folder / "test.jsonl"})


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([row("a"), "", row("b")[:-9]], r"train\.jsonl:3: not JSON .*cut short"),
        ([row("a"), row("b"), row("a")], r"train\.jsonl:3: ID 'a' already stands in line 1"),
        ([row("a"), "[1, 2]"], r"train\.jsonl:2: the field 'ID' is missing"),
        ([row("a"), "7"], r"train\.jsonl:2: the field 'ID' is missing"),
        (['{"ID": "a", "Body": "", "Question": "", "Equation": ""}'], r"train\.jsonl:1: the field 'Answer' is missing"),
        ([row("a", Equation="( 1 / 0 )")], r"train\.jsonl:1: the equation '\( 1 / 0 \)' divides by zero; mend"),
        ([row("a", Answer="many")], r"train\.jsonl:1: .*many"),
        ([row("a", Answer=[1])], r"train\.jsonl:1: "),
        ([row("a", Answer=None)], r"train\.jsonl:1: "),
        ([row("a", ID=5)], r"train\.jsonl:1: ID 5 is no text"),
        (row("ä").encode("utf-16"), r"train\.jsonl:1: not UTF-8"),
        (row("a").encode() + b"\n\xff\n", r"train\.jsonl:2: not UTF-8"),
        (b"", r"train\.jsonl: the file is empty"),
        ([row("t-1", ID="x")], r"train\.jsonl: none of its 1 rows can be used: .*it stands in test"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(lines: list[str] | bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        read(tmp_path, lines)


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl: cannot be read .*stillroom fetch.*STILLROOM_DATA"):
        read_splits("svamp", {"test": tmp_path / "x.jsonl"})


def test_a_question_that_stands_twice_is_kept_once_and_what_is_tested_wins(tmp_path: Path) -> None:
    same = {"Body": "T-1  had 4 eggs"}
    lines = [row("a"), row("b", **same), row("c", Body="a had 4 eggs!", Answer=2), row("d", Body="a had 4 eggs?")]
    splits = read(tmp_path, lines)
    assert [problem.id for problem in splits["train"]] == ["a"]  # type: ignore[index]
    notes = splits.notes["train.jsonl"]  # type: ignore[attr-defined]
    assert notes.fates == {
        "refused": {"it stands in test": [2], "it stands above with another answer": [3], "it stands above": [4]}
    }


def test_mojibake_is_mended_in_every_text(tmp_path: Path) -> None:
    broken = {"Body": "Ann had 4Â° â€“ cold.", "Question": "Why â‡’?"}
    (tmp_path / "test.jsonl").write_text(row("a", **broken), encoding="utf-8")
    splits = read_splits("svamp", {"test": tmp_path / "test.jsonl"})
    (problem,) = splits["test"]
    assert (problem.question, problem.story) == ("Ann had 4° – cold. Why ⇒?", "Ann had 4° – cold.")
    assert splits.notes["test.jsonl"].fates == {"mended": {"mojibake turned back": [1]}}


def test_options_that_changed_places_make_no_other_question(tmp_path: Path) -> None:
    def ask(answer: str, *texts: str) -> str:
        return line(
            "aqua", options=[f"{letter}){text}" for letter, text in zip("ABC", texts, strict=True)], correct=answer
        )

    (tmp_path / "test.jsonl").write_text(ask("A", "1", "2", "3"))
    lines = [ask("C", "3", "2", "1"), ask("A", "3", "2", "1"), ask("A", "1", "2", "4"), ask("A", "4", "1", "2")]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    splits = read_splits("aqua", {split: tmp_path / f"{split}.jsonl" for split in ("train", "test")})
    assert [problem.choices for problem in splits["train"]] == [("1", "2", "4")]
    assert splits.notes["train.jsonl"].fates == {
        "refused": {
            "it stands in test": [1],
            "it stands in test with another answer": [2],
            "it stands above with another answer": [4],
        }
    }
