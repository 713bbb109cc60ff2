"""`stillroom grade`: lines in, verdicts out, in order; a bad line is named with its number and harms no neighbour."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillroom.tasks.grading import FIELDS, grade_lines

GOOD = {"kind": "numeric", "gold": "8", "prediction_text": "The answer is 8.", "id": 7}
BAD = {
    b"{": "not JSON",
    b"[1, 2]": "not a JSON object",
    b'"text"': "not a JSON object",
    b"\xff\xfe{}": "not UTF-8",
    b"[" * 100_000: "not JSON",
    b'{"kind": "numeric", "gold": "8"}': "the field 'prediction_text' is missing",
    b'{"gold": "8", "prediction_text": "8"}': "the field 'kind' is missing",
    b'{"kind": "number", "gold": "8", "prediction_text": "8"}': "numeric",
    b'{"kind": 5, "gold": "8", "prediction_text": "8"}': "unknown kind",
    b'{"kind": ["numeric"], "gold": "8", "prediction_text": "8"}': "unknown kind",
    b'{"kind": "numeric", "gold": [8], "prediction_text": "8"}': "gold is [8]",
    b'{"kind": "numeric", "gold": null, "prediction_text": "8"}': "gold is null",
    b'{"kind": "numeric", "gold": "8", "prediction_text": null}': "prediction_text is null",
    b'{"kind": "numeric", "gold": "8", "prediction_text": 8}': "prediction_text is 8",
    b'{"kind": "choice", "gold": "A", "prediction_text": "A", "choices": "AB"}': "choices is",
    b'{"kind": "choice", "gold": "A", "prediction_text": "A", "choices": [1]}': "choices is",
}


def call(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "stillroom", "grade", *arguments]
    return subprocess.run(command, input=stdin, env=environment, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_named_and_its_neighbours_are_graded(line: bytes) -> None:
    told: list[tuple[int, str]] = []
    good = json.dumps(GOOD).encode()
    graded = list(grade_lines([good, b"\n", line, good], lambda number, reason: told.append((number, reason))))
    assert [json.loads(verdict)["correct"] for verdict in graded] == [True, True]
    assert [number for number, _ in told] == [3]
    assert BAD[line] in told[0][1]


def test_verdicts_that_could_not_be_written_are_refused_in_a_sentence(tmp_path: Path) -> None:
    done = call("-", "-o", str(tmp_path / "none" / "v.jsonl"), stdin=json.dumps(GOOD).encode())
    assert done.returncode == 2
    assert b"v.jsonl stands in a folder that does not exist; name a file in a folder that exists" in done.stderr


def test_verdicts_do_not_replace_what_is_graded(tmp_path: Path) -> None:
    asked = tmp_path / "p.jsonl"
    asked.write_text(json.dumps(GOOD))
    done = call(str(asked), "-o", str(tmp_path / "." / "p.jsonl"))
    assert done.returncode == 2
    assert b"is the file that is read; name another" in done.stderr
    assert asked.read_text() == json.dumps(GOOD)


def test_each_line_comes_back_with_its_verdict_in_order() -> None:
    rows = [{**GOOD, "id": n, "kind": ("math", "numeric")[n % 2], "gold": str(n % 9)} for n in range(40)]
    out = [json.loads(line) for line in grade_lines((json.dumps(row).encode() for row in rows), pytest.fail)]
    assert [{key: row[key] for key in GOOD} for row in out] == rows
    assert all(set(FIELDS) <= set(row) for row in out)
    assert [row["correct"] for row in out] == [row["gold"] == "8" for row in rows]


def test_a_gold_may_be_a_number_or_a_truth_and_a_line_may_be_huge() -> None:
    rows = [
        {**GOOD, "gold": 8},
        {**GOOD, "kind": "boolean", "gold": True, "prediction_text": "Yes."},
        {**GOOD, "prediction_text": "word " * 10**6 + "The answer is 8."},
        {**GOOD, "prediction_text": "The answer is 8. \ud800"},
        {**GOOD, "note": float("nan")},
    ]
    out = list(grade_lines((json.dumps(row).encode() for row in rows), pytest.fail))
    assert all(json.loads(line)["correct"] for line in out)


def test_the_door_reads_a_file_or_stdin_and_tells_bad_lines(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good, b"nonsense", good]))
    done = call(str(path), "-o", str(out))
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"{path}:2: not JSON" in done.stderr.decode()
    assert len(out.read_text().splitlines()) == 2
    piped = call("-", stdin=good)
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert json.loads(piped.stdout)["rule"] == "asked"


def test_wrong_usage_is_told_with_code_2_and_writes_nothing(tmp_path: Path) -> None:
    for source in (tmp_path / "missing.jsonl", tmp_path):
        done = call(str(source), "-o", str(tmp_path / "out.jsonl"))
        assert done.returncode == 2
        assert "cannot be read" in done.stderr.decode()
        assert not (tmp_path / "out.jsonl").exists()
