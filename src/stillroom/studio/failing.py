"""Why did it fail here? The student is asked again, each thought replaced in turn; every answer is graded."""

from collections.abc import Iterator
from dataclasses import dataclass

from stillroom.conversation import Change, Speaker, Way
from stillroom.records import Problem
from stillroom.tasks.answers import grade

TRIED = ("zero", "mean", "noise")


@dataclass(frozen=True)
class Trial:
    """What was done to its thoughts, what it said then, and whether that is right."""

    done: str
    answer: str
    correct: bool


def trials(speaker: Speaker, problem: Problem) -> Iterator[Trial]:
    """As it is, then for one that thinks: ended early after every number of thoughts, off, and each thought replaced.

    Raises `UsageError` as `Speaker.say` does.
    """

    def trial(done: str, answer: str) -> Trial:
        return Trial(done, answer, grade(problem.kind, problem.answer, answer, problem.choices).correct)

    whole = speaker.say(problem.question, Way())
    yield trial("as it is", whole.answer)
    if not speaker.thoughts:
        return
    for count, answer in enumerate(whole.early[:-1]):
        yield trial(f"ended after {count} thoughts", answer)
    yield trial("thoughts off", speaker.say(problem.question, Way("off")).answer)
    kinds = TRIED if speaker.company else tuple(kind for kind in TRIED if kind != "mean")
    for step in range(speaker.thoughts):
        for kind in kinds:
            turn = speaker.say(problem.question, Way("", (Change(step, kind),)))
            yield trial(f"thought {step} by {kind}", turn.answer)
