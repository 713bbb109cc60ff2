"""Benchmarks from files: equations become steps, and a faulty file is named with its line."""

import json
import os
from pathlib import Path

import pytest

from stillroom.errors import DataError
from stillroom.tasks import check
from stillroom.tasks.benchmarks import SvampConfig, equation_steps, rows, svamp

DATA = Path(os.environ.get("STILLROOM_DATA") or Path(__file__).parents[2] / "shared" / "data")
ROW = {"ID": "c-1", "Body": "Ann had 4 eggs.", "Question": "How many are 3 fewer?", "Equation": "( 4.0 - 3.0 )"}


def row(name: str, **changes: object) -> str:
    return json.dumps({**ROW, "ID": name, "Answer": 1.0, **changes})


def data(folder: Path, train: list[str] | bytes, test: list[str] | None = None) -> Path:
    content = train if isinstance(train, bytes) else "\n".join(train).encode()
    (folder / "svamp_train.jsonl").write_bytes(content)
    (folder / "svamp_test.jsonl").write_text("\n".join(test or [row("t-1")]))
    return folder


@pytest.mark.parametrize(
    ("equation", "steps"),
    [
        ("( 4.0 - 3.0 )", [("4 - 3", "1")]),
        ("( ( 4.0 + 13.0 ) * 15.0 )", [("4 + 13", "17"), ("17 * 15", "255")]),
        ("( 10.0 - ( 2.0 * 3.0 ) )", [("2 * 3", "6"), ("10 - 6", "4")]),
        ("( ( 1.0 + 2.0 ) * ( 3.0 + 4.0 ) )", [("1 + 2", "3"), ("3 + 4", "7"), ("3 * 7", "21")]),
        ("( 3.0 - ( 4.0 - 9.0 ) )", [("4 - 9", "-5"), ("3 - -5", "8")]),
        ("( 7.0 / 2.0 )", [("7 / 2", "3.5")]),
        ("5.0", []),
    ],
)
def test_steps_are_worked_by_hand(equation: str, steps: list[tuple[str, str]]) -> None:
    assert [(s.expression, s.value) for s in equation_steps(equation)] == steps


@pytest.mark.parametrize(
    ("equation", "told"),
    [("( 4.0 / 0.0 )", "divides by zero"), ("( 4.0 - 3.0", "not a chain"), ("", "not a chain"), ("( x + 1 )", "chain")],
)
def test_what_is_no_equation_is_named(equation: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        equation_steps(equation)


def test_validation_is_the_end_of_the_training_file(tmp_path: Path) -> None:
    splits = svamp(SvampConfig(validation=2), data(tmp_path, [row(f"c-{i}") for i in range(5)]))
    assert {name: [p.id for p in split] for name, split in splits.items()} == {
        "train": ["c-0", "c-1", "c-2"], "validation": ["c-3", "c-4"], "test": ["t-1"],
    }  # fmt: skip
    first = splits["train"][0]
    assert first.question == "Ann had 4 eggs. How many are 3 fewer?"
    assert (first.answer, first.steps[0].expression) == ("1", "4 - 3")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([row("a"), "", row("b")[:-9]], r"svamp_train\.jsonl:3: not JSON .*cut short"),
        ([row("a"), row("b"), row("a")], r"svamp_train\.jsonl:3: ID 'a' already stands in line 1"),
        ([row("a"), "[1, 2]"], r"svamp_train\.jsonl:2: the field 'ID' is missing"),
        ([row("a"), "7"], r"svamp_train\.jsonl:2: the field 'ID' is missing"),
        ([json.dumps(ROW)], r"svamp_train\.jsonl:1: the field 'Answer' is missing; expected ID, Body"),
        ([row("a", Equation="( 1 / 0 )")], r"svamp_train\.jsonl:1: the equation '\( 1 / 0 \)' divides by zero"),
        ([row("a", Answer="many")], r"svamp_train\.jsonl:1: .*many"),
        ([row("a", Answer=[1])], r"svamp_train\.jsonl:1: "),
        ([row("a", Answer=None)], r"svamp_train\.jsonl:1: "),
        ([row("a", ID=5)], r"svamp_train\.jsonl:1: "),
        ([row("a"), row("b")], r"task\.validation is 2, but svamp_train\.jsonl holds 2 problems"),
        (row("ä").encode("utf-16"), r"svamp_train\.jsonl:1: not UTF-8"),
        (row("a").encode() + b"\n\xff\n", r"svamp_train\.jsonl:2: not UTF-8"),
        (b"", r"svamp_train\.jsonl: the file is empty"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(lines, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        svamp(SvampConfig(validation=2), data(tmp_path, lines))


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"svamp_train\.jsonl: cannot be read .*set STILLROOM_DATA"):
        svamp(SvampConfig(), tmp_path)


def test_rows_without_an_identity_may_repeat(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"x": 1}\n\n{"x": 1, "y": 2}\n', encoding="utf-8")
    assert list(rows(path, ("x",), None)) == [(1, {"x": 1}), (3, {"x": 1, "y": 2})]


@pytest.mark.skipif(not (DATA / "svamp_train.jsonl").exists(), reason="needs SVAMP: set STILLROOM_DATA to its folder")
def test_the_published_file_keeps_every_law() -> None:
    splits = svamp(SvampConfig(), DATA)
    check(splits)
    assert {name: len(split) for name, split in splits.items()} == {"train": 600, "validation": 100, "test": 300}
    agreeing = [p.steps[-1].value == p.answer for split in splits.values() for p in split if p.steps]
    assert sum(agreeing) / len(agreeing) > 0.99
