"""Answering: problems are put to a backend, and what it answers is on disk before it is asked on.

It knows no model, no server and no grader.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from pydantic import Field, model_validator

from stillroom.config import Config
from stillroom.files import AppendOnly
from stillroom.progress import meter, say
from stillroom.records import Prediction, Problem


class EvaluateConfig(Config):
    train_sample: int = Field(500, ge=0)
    """Training problems, evenly spaced, that are asked again: train minus test accuracy tells memory from skill."""
    new_tokens: int = Field(96, ge=1)
    batch_size: int = Field(256, ge=1)
    threads: int = Field(2, ge=1)


class AnswerConfig(EvaluateConfig):
    """How any model is asked."""

    train_sample: int = Field(0, ge=0)
    limit: int | None = Field(None, ge=1)
    """The first so many problems of every split."""
    shots: int = Field(0, ge=0)
    """Worked training problems before each question."""
    samples: int = Field(1, ge=1)
    """Answers to each question."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the likeliest token."""
    seed: int = Field(0, ge=0)
    """Of the samples, and of the choice of shots."""
    max_length: int | None = Field(None, ge=1)
    """Question and answer together, in tokens; the model's own context where it is not given."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and not self.temperature:
            raise ValueError("several samples at temperature 0 are all the same: give a temperature, such as 0.7")
        return self


class Answer(NamedTuple):
    """What came of one question. `truncated`: it was not asked, since it left no room for an answer."""

    text: str
    tokens: int
    stopped: bool
    thoughts: int = 0
    truncated: bool = False


UNASKED = Answer("", 0, False, truncated=True)


class Backend(Protocol):
    """Who answers: a model in this process, in words or after thoughts, or a server."""

    def answers(self, questions: Sequence[str], known: frozenset[int]) -> Iterator[dict[int, Answer]]:
        """Batch by batch, keyed by the question's row; those in `known` need not come.

        How a row is answered depends on the questions alone, never on `known`. A question may stand several times in
        a row: then each is a sample of its own.
        """
        ...


class Timed(NamedTuple):
    """Predictions, sample by sample in the order of the problems, and what they took (earlier runs included)."""

    predictions: list[Prediction]
    measured: dict[str, float]


def ask(
    backend: Backend,
    problems: Sequence[Problem],
    questions: Sequence[str],
    samples: int,
    journal: Path,
    label: str,
    check: Callable[[], None] = lambda: None,
    whole: bool = True,
) -> Timed:
    """Put each problem's question `samples` times. Each batch is on disk in `journal` before the next begins, and a
    prediction that is there is never written again. `check` is called after each batch. Unless `whole`, the backend
    answers a part of the rows and leaves the others to other processes.
    """
    rows = [(problem.id, sample) for problem in problems for sample in range(samples)]
    row_of = {row: number for number, row in enumerate(rows)}
    asked = [question for question in questions for _ in range(samples)]
    clock = journal.with_suffix(".clock")
    with AppendOnly(journal) as file, AppendOnly(clock) as times, meter(label, len(rows), "answers") as bar:
        done = {(p.problem, p.sample): p for p in map(Prediction.model_validate_json, file.lines)}
        bar.advance(len(done))
        known = frozenset(row_of[row] for row in done)
        timed = list(times.lines)
        began = time.monotonic()
        for batch in backend.answers(asked, known):
            fresh = [_prediction(rows[row], answer) for row, answer in batch.items() if rows[row] not in done]
            file.append([prediction.model_dump_json() for prediction in fresh])
            tokens = sum(answer.tokens for answer in batch.values())
            took = f"{len(batch)} {tokens} {time.monotonic() - began:.4f}"
            times.append([took])
            timed.append(took)
            done |= {(p.problem, p.sample): p for p in fresh}
            bar.advance(len(fresh))
            check()
            began = time.monotonic()
    predictions = [done[row] for row in rows if whole or row in done]
    if unasked := sum(prediction.truncated for prediction in predictions) // samples:
        say(f"  {label}: {unasked} questions are longer than the student's context; they count as unanswered")
    names = ("answers", "tokens", "seconds")
    return Timed(predictions, {name: sum(float(line.split()[i]) for line in timed) for i, name in enumerate(names)})


def _prediction(row: tuple[str, int], answer: Answer) -> Prediction:
    return Prediction(problem=row[0], sample=row[1], **answer._asdict())
