"""The granularity study's rationales (arXiv 2502.18001) from a checkout of its repository, as rows for `recorded`.

The repository's `data/dataset_info.json` names every set of rationales with its file and column; the cell (dataset,
teacher, level, format) is read from that name. What is mended and what is left out is counted and told:

- control characters that a bad JSON escape left in LaTeX are turned back (`\\x0c` was `\\f`, a tab `\\t`);
- a row without the named teacher's column, or with a text that another teacher has word by word for the same question,
  is not that teacher's (195 rows of `math_gemini_level1` are ChatGPT's);
- a text of fewer than three words before its answer holds no reasoning;
- a question that stands twice in a file keeps its first text;
- questions that are no training problem here are left out, StrategyQA's 290 test questions among them.

Wrong answers, and teachers that admit to have seen the answer, are left to the gates.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stillroom.errors import DataError
from stillroom.files import write_atomic
from stillroom.records import Problem
from stillroom.tasks import TASKS
from stillroom.tasks.contamination import words
from stillroom.teachers import concluded

FILE = "eit_cot.jsonl"
DATASETS = {
    "svamp": "svamp", "gsm8k": "gsm8k", "math": "math", "aqua": "aqua", "auqa": "aqua", "cqa": "csqa", "csqa": "csqa",
    "ecqa": "csqa", "obqa": "openbookqa", "stqa": "strategyqa",
}  # fmt: skip
TEACHERS = {"chatgpt": "chatgpt", "gemini": "gemini", "llama": "llama3-70b", "human": "human"}
LATEX = {"\x0c": "\\f", "\x08": "\\b"}
TAB = re.compile(r"\t(?=(?:imes|ext|an|heta|frac|o\b|riangle|herefore|ilde|op\b))")
CHOICES = re.compile(r"\s*Answer choices\s*:", re.IGNORECASE)
LETTER = re.compile(r"(?:^|(?<=[\s,]))\(?[A-E][:)]")
FEWEST = 3


class Cell(NamedTuple):
    dataset: str
    teacher: str
    format: str
    granularity: int | None
    file: str
    question: str
    text: str
    """The columns that hold the two."""


class Built(NamedTuple):
    rows: int
    cells: int
    missing: list[str]
    """Files that the index names and the folder lacks."""
    notes: Mapping[str, int]


def cells(index: Mapping[str, Any]) -> Iterator[Cell]:
    """The sets of rationales that `dataset_info.json` names; sets of bare answers are passed over."""
    for name, entry in index.items():
        said = f"{name} {entry['file_name']}".lower()
        dataset = DATASETS.get(name.lower().partition("_")[0])
        form = next((form for form in ("bsm", "rar", "sym") if form in said), "plain")
        teacher = next(
            (ours for theirs, ours in TEACHERS.items() if theirs in said), "chatgpt" if form != "plain" else ""
        )
        level = re.search(r"level_?(\d)", said)
        if dataset is None or not teacher or "ans" in name.lower().rpartition("_")[2]:
            continue
        columns = entry["columns"]
        human = teacher == "human"
        yield Cell(
            dataset, teacher, "human" if human else form, None if human or not level else int(level[1]),
            entry["file_name"], columns["prompt"], columns["response"],
        )  # fmt: skip


def mended(text: str) -> str:
    """The text with LaTeX commands whose backslash was read as the start of an escape turned back."""
    for control, latex in LATEX.items():
        text = text.replace(control, latex)
    return TAB.sub(lambda _: "\\t", text)


def build(source: Path, data: Path) -> Built:
    """Write `eit_cot.jsonl` into `data` from the checkout `source`, for the benchmarks whose files `data` holds.

    Raises `DataError` where the checkout has no index, or where nothing fits.
    """
    folder = source / "data" if (source / "data").is_dir() else source
    index = _json(folder / "dataset_info.json")
    notes: Counter[str] = Counter()
    found = list(cells(index))
    asked = {dataset: _problems(dataset, data) for dataset in dict.fromkeys(cell.dataset for cell in found)}
    there = [cell for cell in found if (folder / cell.file).is_file()]
    rows = [row for cell in there for row in _rows(cell, folder / cell.file, asked[cell.dataset], notes)]
    kept = _once(_own(rows, notes), notes)
    if not kept:
        raise DataError(
            f"{folder}: no rationale fits a training problem of {data}: bring the benchmarks first, as in "
            "`stillroom fetch gsm8k svamp --from DIR`"
        )
    write_atomic(data / FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    missing = sorted({cell.file for cell in found} - {cell.file for cell in there})
    made = {(row["dataset"], row["teacher"], row["format"], row["granularity"]) for row in kept}
    return Built(len(kept), len(made), missing, dict(notes))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); "
            "give a checkout of EIT-NLP/Distilling-CoT-Reasoning with --from"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); check the repository out again") from None


def _problems(dataset: str, data: Path) -> dict[str, Problem]:
    """Training problems by the words of question and options; none where the benchmark's files are not there."""
    task = TASKS[dataset]
    config = task.config.parse({"validation": 1}, dataset)
    if not all((data / name).is_file() for name in task.files(config)):
        return {}
    made = task.splits(config, data)
    problems = [*made["train"], *made["validation"]]
    return {words(" ".join([p.story, *p.choices]) if p.choices else p.question, p.kind): p for p in problems}


def _rows(cell: Cell, path: Path, asked: Mapping[str, Problem], notes: Counter[str]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(_json(path), 1):
        if not isinstance(row.get(cell.question), str) or not isinstance(row.get(cell.text), str):
            notes["rows without a question or a text"] += 1
            continue
        problem = _find(row[cell.question], asked)
        text = mended(row[cell.text]).strip()
        if problem is None:
            notes["questions that are no training problem here"] += 1
        elif len(concluded(text)[0].split()) < FEWEST:
            notes["texts without reasoning"] += 1
        else:
            notes["texts with LaTeX turned back"] += text != row[cell.text].strip()
            yield {
                "dataset": cell.dataset, "split": "train", "id": problem.id, "question": problem.question,
                "answer": problem.answer, "teacher": cell.teacher, "granularity": cell.granularity,
                "format": cell.format, "cot": text, "source": f"{cell.file}:{number}",
            }  # fmt: skip


def _find(question: str, asked: Mapping[str, Problem]) -> Problem | None:
    """The problem with this question, whose options may follow it as `Answer choices: A: neck, B: box`."""
    text = question.removeprefix("Q: ")
    if mark := CHOICES.search(text):
        text = f"{text[: mark.start()]} {LETTER.sub(' ', text[mark.end() :])}"
    return asked.get(words(text)) or asked.get(words(text, "math"))


def _own(rows: Sequence[dict[str, Any]], notes: Counter[str]) -> list[dict[str, Any]]:
    """The rows that are their teacher's own: not word by word another teacher's for the same question."""
    rank = {"human": 0, "chatgpt": 1, "llama3-70b": 2, "gemini": 3}
    first: dict[tuple[str, str, str], str] = {}
    for row in sorted(rows, key=lambda row: rank[row["teacher"]]):
        first.setdefault((row["dataset"], row["id"], row["cot"]), row["teacher"])
    own = [row for row in rows if first[row["dataset"], row["id"], row["cot"]] == row["teacher"]]
    notes["texts that are another teacher's"] = len(rows) - len(own)
    return own


def _once(rows: Sequence[dict[str, Any]], notes: Counter[str]) -> list[dict[str, Any]]:
    """The first row of each cell and problem: some files hold a question twice, which `recorded` would refuse."""
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        first.setdefault((row["dataset"], row["teacher"], row["format"], row["granularity"], row["id"]), row)
    notes["questions that stand twice in a file"] = len(rows) - len(first)
    return list(first.values())
