"""A student for others: merged, with a card that tells what it was taught, by whom, how, and how well it does."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stillroom.files import read_lines
from stillroom.records import Score
from stillroom.store import MANIFEST, Manifest, Store
from stillroom.students.exporting import card, export_merged
from stillroom.students.folders import keep_beside, load, load_manner, origin_of

CARD = "README.md"


def export_student(folder: Path, target: Path) -> None:
    """Write a student's folder as a plain model with its card; it stays a student's folder of its own.

    Raises `DataError` for a folder that is none.
    """
    told = card_of(folder)
    student = load(folder).plain()
    export_merged(student.model, student.tokenizer, target, told, partial(keep_beside, student))


def card_of(folder: Path) -> str:
    """From the manifests of the student and of all that it was made from, where the folder stands in a store.

    A folder that was copied out of a store brings the card that it was given then.
    """
    source = origin_of(folder, load_manner(folder)).source
    if not (folder / MANIFEST).is_file() and (folder / CARD).is_file():
        return (folder / CARD).read_text(encoding="utf-8")
    trail = dict(_trail(folder))
    own = trail.get("student")
    told: dict[str, Any] = {
        "Data": trail["problems"].config if "problems" in trail else None,
        "Teacher": trail["rationales"].config if "rationales" in trail else None,
        "Variant": trail["lessons"].config if "lessons" in trail else None,
        "Config": own.config if own else None,
        "Scores": list(_scores(folder, own)) if own else None,
    }
    front = {"library_name": "transformers", "tags": ["stillroom", "distillation"]}
    if own is not None and not Path(source).is_dir():
        front["base_model"] = source
    title = own.name if own else folder.name
    return card(title, front, {name: _plain(value) for name, value in told.items()})


def _plain(value: Any) -> Any:
    """Nested settings as dotted names, so that a table of two columns holds them."""
    if not isinstance(value, dict):
        return value
    rows: dict[str, Any] = {}
    for key, inner in value.items():
        deeper = _plain(inner)
        rows |= {f"{key}.{name}": v for name, v in deeper.items()} if isinstance(deeper, dict) else {key: deeper}
    return rows


def _trail(folder: Path) -> Iterator[tuple[str, Manifest]]:
    """The manifests of a folder of the store and of its ancestors, by stage; the nearest of each."""
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop(0)
        if not (here / MANIFEST).is_file():
            continue
        manifest = Manifest.model_validate_json((here / MANIFEST).read_bytes())
        if manifest.stage not in seen:
            seen.add(manifest.stage)
            yield manifest.stage, manifest
        waiting += [here.parent.parent / parent.stage / parent.key for parent in manifest.parents.values()]


def _scores(folder: Path, own: Manifest) -> Iterator[dict[str, Any]]:
    """Test accuracy from every scoring of the store that this student took part in."""
    store = Store(folder.resolve().parent.parent)
    manifests = list(store.manifests())
    answered = {
        m.key for m in manifests if any(p.key == own.key for p in m.parents.values()) and m.stage == "predictions"
    }
    for scoring in (m for m in manifests if m.stage == "scores"):
        roles = {role for role, parent in scoring.parents.items() if parent.key in answered}
        known = {tuple(value) for role, value in scoring.config["students"].items() if role in roles}
        for score in read_lines(store.folder("scores", scoring.key) / "scores.jsonl", Score):
            if score.metric == "accuracy" and score.group == "all" and (score.student, score.seed) in known:
                yield {
                    "split": score.split,
                    "accuracy": score.value,
                    "low": score.low,
                    "high": score.high,
                    "n": score.n,
                }
