"""Many models asked many tasks: a plan without a recipe. Models that are folders, tasks that are names or files."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from stillroom import evaluation, tasks
from stillroom.errors import UsageError
from stillroom.evaluation import models, scoring
from stillroom.evaluation.answering import AnswerConfig
from stillroom.evaluation.models import Given
from stillroom.files import sha256
from stillroom.pipeline.questions import standing
from stillroom.pipeline.staging import staged
from stillroom.store import Stage
from stillroom.students.folders import ADAPTER, MANNER
from stillroom.teachers.limits import Limits


def models_below(folder: Path) -> list[str]:
    """Every folder of a student, a model or an adapter below a folder, itself included; none inside another."""
    if not folder.is_dir():
        raise UsageError(f"--model-dir {folder}: no such folder")
    found: list[Path] = []
    for path in sorted([folder, *(p for p in folder.rglob("*") if p.is_dir())]):
        inside = any(path.is_relative_to(known) for known in found)
        if not inside and any((path / name).is_file() for name in (MANNER, ADAPTER, "config.json")):
            found.append(path)
    if not found:
        raise UsageError(f"--model-dir {folder}: no folder below it holds {MANNER}, {ADAPTER} or config.json")
    return [str(path) for path in found]


def evaluation_plan(
    given: Sequence[Given], names: Sequence[str], config: AnswerConfig, limits: Limits
) -> tuple[list[Stage], dict[str, Given]]:
    """The stages, problems first and scores last, and the models by the labels that they have in the scores."""
    known = labelled([models.settled(model) for model in given])
    asked: dict[str, Stage] = {}
    for name in dict.fromkeys(names):
        if task_label(name) in asked:
            raise UsageError(f"--task {name}: another task is called {task_label(name)} too; rename the file")
        asked[task_label(name)] = problems_of(name)
    settings = config.model_dump(mode="json", exclude={"batch_size"} if _remote(known) else set())
    stages: list[Stage] = list(asked.values())
    parents: dict[str, Stage] = {f"problems {task}": stage for task, stage in asked.items()}
    for label, model in known.items():
        told = models.stamp(model)
        for task, problems in asked.items():
            run = partial(evaluation.make_answers, model, config, limits, task)
            stage = Stage(
                "predictions", f"{label} on {task}", evaluation.PREDICTIONS_VERSION, {**settings, "model": told},
                {"problems": problems}, run,
            )  # fmt: skip
            stages.append(stage)
            parents[f"{label} on {task}"] = stage
    scores = scoring.EvaluationConfig(
        models={label: named(label) for label in known}, tasks=tuple(asked), limit=config.limit
    )
    run_scores = partial(scoring.make_evaluation, scores)
    last = staged("evaluation", "evaluation", scoring.VERSION, scores, parents, run_scores)
    return [*stages, last], known


def _remote(known: dict[str, Given]) -> bool:
    return all(model.base_url is not None for model in known.values())


def labelled(given: Sequence[Given]) -> dict[str, Given]:
    """Models by label; those that would share one are told apart by the folders above them. One named twice is one."""
    once = list(dict.fromkeys(given))
    found: dict[str, Given] = {}
    for model in once:
        shared = [other for other in once if other.label == model.label]
        whole = Path(model.adapter or model.source)
        label = model.label if len(shared) == 1 else f"{model.label}_{'_'.join(whole.resolve().parts[-3:])}"
        while label in found:
            label += "+"
        found[label] = model
    return found


def named(label: str) -> tuple[str, int]:
    """`normal@1` is the student `normal` of seed 1, as recipes with several seeds name it."""
    name, at, seed = label.rpartition("@")
    return (name, int(seed)) if at and name and seed.isdecimal() else (label, 0)


def task_label(name: str) -> str:
    return Path(name).stem if name.endswith(".jsonl") else name


def problems_of(name: str) -> Stage:
    """The stage of a task by its name, or of a file of questions. Raises `UsageError`, or `DataError` for a file that
    is not there."""
    task, config, data = standing(name)
    stamp = {"files": {file: sha256(data / file) for file in task.files(config)}}
    run = partial(tasks.make_problems, task, config, data)
    return staged("problems", f"problems {task_label(name)}", tasks.VERSION, config, {}, run, stamp)
