"""Lines: JSON objects, or the notation of iCoT."""

from pathlib import Path

from stillroom.tasks.benchmarks import BENCHMARKS, absent
from stillroom.tasks.benchmarks.rows import icot, rows


def test_rows_without_an_identity_may_repeat(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"x": 1}\n\n{"x": 1, "y": 2}\n', encoding="utf-8")
    assert list(rows(path, ("x",), None)) == [(1, {"x": 1}), (3, {"x": 1, "y": 2})]


def test_a_line_of_icot_is_a_row(tmp_path: Path) -> None:
    row = {"question": "How many | eggs?", "steps": ["<<1+1=2>>", "<<2*3=6>>"], "answer": "6"}
    text = "How many | eggs?||<<1+1=2>> <<2*3=6>> #### 6"
    assert icot(text) == row
    assert icot("Q|| #### 1,000") == {"question": "Q", "steps": [], "answer": "1,000"}
    path = tmp_path / "train.txt"
    path.write_text(text + "\n")
    assert list(rows(path, ("question", "steps", "answer"), None)) == [(1, row)]
    assert "answer" not in icot("Q||<<1+1=2>>")


def test_a_file_that_is_not_there_names_its_benchmark_and_the_split_that_fetch_brings(tmp_path: Path) -> None:
    for split in ("study", "official"):
        for file in BENCHMARKS["gsm8k"].files("gsm8k", split).values():
            told = absent(tmp_path / file)
            assert f"{file}: no such file; `stillroom fetch gsm8k` brings" in told
            assert "task.split=official" in told
    assert "bring it with" in absent(tmp_path / "mine.jsonl")
