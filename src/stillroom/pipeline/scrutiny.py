"""What else is asked of students, where the recipe wants it: faithfulness, cost, and whether they solve or memorise."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from stillroom.evaluation import EvaluateConfig, cost, faithfulness, memorising
from stillroom.pipeline.staging import staged
from stillroom.recipes import Recipe
from stillroom.store import Stage
from stillroom.students.pretrained import Pretrained

TEACHER = "teacher"
MEASURES = ("faithfulness", "cost", "memorising")
Predictions = Callable[[str, Stage, Stage, EvaluateConfig], Stage]
"""From a label, a student, problems and a config to the stage that asks it."""


def local_teacher(recipe: Recipe) -> Pretrained | None:
    """The teacher as one more model to be asked, where its cost is wanted and it runs here; in its own chat style where
    its tokenizer has a template."""
    if recipe.cost is None or recipe.teacher.get("name") != "local":
        return None
    folder = Path(str(recipe.teacher.get("folder")))
    settings = folder / "tokenizer_config.json"
    chats = (folder / "chat_template.jinja").is_file() or (
        settings.is_file() and '"chat_template"' in settings.read_text(encoding="utf-8")
    )
    return Pretrained(source=str(folder), style="chat" if chats else "plain")


def scrutiny(
    recipe: Recipe,
    data: Path,
    checksums: Callable[[tuple[str, ...]], Mapping[str, object]],
    people: Mapping[str, Stage],
    answered: Mapping[str, Stage],
    problems: Stage,
    ask: Predictions,
) -> Iterator[tuple[str, Stage]]:
    """The stages by the role that the report gives them (none for what only leads to one); `people` and `answered` are
    those who are asked and their predictions, by label."""
    for label, person in people.items():
        if (wanted := recipe.faithfulness) is not None:
            files = (wanted.paraphrases,) if wanted.paraphrases else ()
            run = partial(faithfulness.make_faithfulness, wanted, label, data)
            parents = {"student": person, "problems": problems}
            stamp = {"subject": label, **checksums(files)}
            name = f"faithfulness {label}"
            yield name, staged("faithfulness", name, faithfulness.VERSION, wanted, parents, run, stamp)
        if (clock := recipe.cost) is not None:
            parents = {"student": person, "problems": problems, "predictions": answered[label]}
            run = partial(cost.make_cost, clock, label)
            name = f"cost {label}"
            yield name, staged("cost", name, cost.VERSION, clock, parents, run, {"subject": label})
    if recipe.memorising is not None:
        yield from _memorising(recipe, recipe.memorising, people, answered, problems, ask)


def _memorising(
    recipe: Recipe,
    config: memorising.MemorisingConfig,
    people: Mapping[str, Stage],
    answered: Mapping[str, Stage],
    problems: Stage,
    ask: Predictions,
) -> Iterator[tuple[str, Stage]]:
    run = partial(memorising.make_copies, config)
    copies = staged("copies", "copies", memorising.COPIES_VERSION, config, {"problems": problems}, run)
    yield "", copies
    evaluate = recipe.evaluate.model_copy(update={"train_sample": 0})
    again = {label: ask(f"{label} on copies", person, copies, evaluate) for label, person in people.items()}
    yield from (("", stage) for stage in again.values())
    whose = memorising.Whose(
        students={label: label for label in people}, train_sample=recipe.evaluate.train_sample, measured=config
    )
    parents = {"problems": problems, "copies": copies, **answered}
    parents |= {f"{label} on copies": stage for label, stage in again.items()}
    make = partial(memorising.make_memorising, whose)
    yield "memorising", staged("memorising", "memorising", memorising.VERSION, whose, parents, make)
