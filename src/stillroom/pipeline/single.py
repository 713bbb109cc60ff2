"""One student without a recipe: a base, a file of lessons, and what is set for the student."""

from functools import partial
from pathlib import Path

from pydantic import ValidationError

from stillroom import curriculum, students
from stillroom.errors import DataError, UsageError
from stillroom.files import sha256
from stillroom.pipeline.people import pretrained
from stillroom.pipeline.staging import staged
from stillroom.recipe_files import override
from stillroom.store import Stage
from stillroom.students import StudentConfig
from stillroom.students.folders import MANNER, Manner
from stillroom.students.pretrained import Pretrained, founding


def one_student(
    base: str,
    lessons: Path,
    settings: list[str],
    adapter: str = "full",
    teacher: str | None = None,
    style: str | None = None,
    trust_remote_code: bool = False,
) -> list[Stage]:
    """The plan: base, lessons, student. `settings` are dotted `key=value` assignments to `StudentConfig`."""
    if not lessons.is_file():
        raise DataError(f"{lessons}: no such file; expected JSON lines with `prompt` and `completion`")
    given: dict[str, object] = {"adapter": {"name": adapter}}
    if teacher is not None:
        given["gkd"] = {"teacher": teacher}
    config = StudentConfig.parse(override(given, settings), "train")
    config = config.model_copy(update={"fit": founding(config.fit, config.adapter.name)})
    if config.methods:
        method = config.methods[0]
        told = "learns from lessons with their chain beside them: run a recipe with `variant: latent`"
        raise UsageError(f"{method} {told}")
    source = {"source": base, "style": style or _style(base), "trust_remote_code": trust_remote_code}
    start = pretrained("base", Pretrained.parse(source, "train"))
    taught = Stage(
        "lessons",
        "lessons",
        curriculum.VERSION,
        {"given": sha256(lessons)},
        {},
        partial(curriculum.make_given, lessons),
    )
    parents = {"base": start, "lessons": taught}
    if config.gkd is not None:
        parents["teacher"] = pretrained("teacher", Pretrained(source=config.gkd.teacher))
    run = partial(students.make_student, config)
    student = staged("student", "student", students.VERSION, config, parents, run)
    return [*parents.values(), student]


def _style(base: str) -> str:
    """The style in which a student that serves as the base was taught; `plain` for any other model."""
    try:
        return Manner.model_validate_json((Path(base) / MANNER).read_bytes()).style
    except (OSError, ValidationError):
        return "plain"
