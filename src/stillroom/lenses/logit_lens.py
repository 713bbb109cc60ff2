"""Logit lens (nostalgebraist 2020): which intermediate values can be read off the residual stream, layer by layer.

Every student is read on the same tokens: the question, then `The answer is`, without any reasoning in words. A value
counts as read when its first token is among the five that the lens ranks highest. Only problems count in which the
value stands neither in the question nor, for an intermediate one, in the answer; the null is the same reading of
another problem's value that is right for neither. Layer and position are chosen on validation problems and reported
on test problems.

Legend: L layers (0 is the embedding), B problems, P positions, V vocabulary.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from stillroom.activations import residual_stream, unembed
from stillroom.config import Config
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.records import Finding, Null, Problem
from stillroom.stats import wilson
from stillroom.students import Student

TOP = 5
ENOUGH = 20
"""Problems of one number of steps, in validation and in test, without which an interval says nothing."""
POSITIONS = ("question end", "answer")


class LogitLensConfig(Config):
    name: Literal["logit_lens"] = "logit_lens"
    batch_size: int = Field(64, ge=1)


class Reading(NamedTuple):
    """Counts over the problems in which a value can be told apart: read, read of another problem, and how many."""

    hits: int
    null: int
    n: int


@torch.inference_mode()
def top_tokens(student: Student, questions: Sequence[str], batch_size: int) -> Tensor:
    """The five tokens that the lens ranks highest: (L+1, P, B, TOP), at the two positions of each question."""
    answer = student.tokenizer("The answer is", add_special_tokens=False)["input_ids"]
    prompts = [student.prompt(question) for question in questions]
    parts = []
    for start in range(0, len(prompts), batch_size):
        rows = prompts[start : start + batch_size]
        ids = torch.full((len(rows), max(map(len, rows)) + len(answer)), student.tokenizer.pad_token_id)
        for i, row in enumerate(rows):
            ids[i, : len(row) + len(answer)] = torch.tensor([*row, *answer])
        with residual_stream(student.model) as stream:
            student.model(input_ids=ids.to(student.model.device), use_cache=False)
        ends = torch.tensor([[len(row) - 1, len(row) + len(answer) - 1] for row in rows])
        at = torch.stack([layer[torch.arange(len(rows)), ends.T.to(layer.device)] for layer in stream])
        parts.append(unembed(student.model, at).topk(TOP, dim=-1).indices.cpu())
    return torch.cat(parts, dim=2)


def tellable(problems: Sequence[Problem], step: int) -> list[tuple[int, str, str]]:
    """(row, value, another problem's value) where reading the one can be told from reading the question or answer."""
    found = []
    for row, problem in enumerate(problems):
        value = problem.steps[step].value
        known = {*re.findall(r"\d+(?:\.\d+)?", problem.question)}
        if step < len(problem.steps) - 1:
            known.add(problem.answer)
        shift = (*problems[row + 1 :], *problems[:row])
        others = (p.steps[step].value for p in shift if p.steps[step].value not in known | {value, problem.answer})
        other = next(others, None)
        if value not in known and other is not None:
            found.append((row, value, other))
    return found


def readings(student: Student, top: Tensor, rows: Sequence[tuple[int, str, str]]) -> list[list[Reading]]:
    """A reading for each layer and position, of the values in `rows`."""

    def hit(texts: Sequence[str]) -> Tensor:
        tokens = torch.tensor([_first_token(student, text) for text in texts])
        return (top[:, :, index] == tokens[:, None]).any(dim=-1).sum(dim=-1)  # (L+1, P)

    index = torch.tensor([row for row, _, _ in rows])
    hits, null = hit([value for _, value, _ in rows]).tolist(), hit([other for _, _, other in rows]).tolist()
    return [
        [Reading(*counts, len(rows)) for counts in zip(*layer, strict=True)] for layer in zip(hits, null, strict=True)
    ]


def _first_token(student: Student, value: str) -> int:
    return int(student.tokenizer(f" {value}", add_special_tokens=False)["input_ids"][0])


def look(config: LogitLensConfig, subjects: Subjects) -> list[Finding]:
    asked = {name: subjects.problems[name] for name in ("validation", "test")}
    count = depth(asked)
    splits = {name: [problem for problem in rows if len(problem.steps) == count] for name, rows in asked.items()}
    findings: list[Finding] = []
    for name, student in subjects.students.items():
        if name in subjects.twins or not count or student.manner.thoughts is not None:
            continue  # what a student thinks between question and answer is no part of the text that is read here
        top = {
            split: top_tokens(student, [p.question for p in problems], config.batch_size)
            for split, problems in splits.items()
        }
        for step in range(count):
            rows = {split: tellable(problems, step) for split, problems in splits.items()}
            if all(rows.values()):
                grid = {split: readings(student, top[split], rows[split]) for split in splits}
                findings += list(_findings(name, step, grid["validation"], grid["test"]))
    return findings


def depth(splits: Mapping[str, Sequence[Problem]]) -> int:
    """The largest number of steps that `ENOUGH` problems of every split have, else the commonest; 0 where none is."""
    counts = [Counter(len(problem.steps) for problem in problems) for problems in splits.values()]
    shared = {steps: count for steps in counts[0] if steps and (count := min(c[steps] for c in counts))}
    enough = [steps for steps, count in shared.items() if count >= ENOUGH]
    return max(enough) if enough else max(shared, key=lambda steps: (shared[steps], steps), default=0)


def _findings(name: str, step: int, validation: list[list[Reading]], test: list[list[Reading]]) -> list[Finding]:
    """The whole grid on test problems, then the one cell that validation problems chose."""
    cells = [(layer, place) for layer in range(len(test)) for place in range(len(POSITIONS))]

    def gain(cell: tuple[int, int]) -> float:
        reading = validation[cell[0]][cell[1]]
        return (reading.hits - reading.null) / reading.n

    chosen = max(cells, key=gain)
    metric = f"value {step + 1} in top {TOP}"
    named = [*((cell, metric) for cell in cells), (chosen, f"{metric}, chosen on validation")]
    return [_finding(name, layer, place, metric, test[layer][place]) for (layer, place), metric in named]


def _finding(name: str, layer: int, place: int, metric: str, reading: Reading) -> Finding:
    null = Null(name="another problem's value", **wilson(reading.null, reading.n)._asdict())
    return Finding(
        lens="logit_lens",
        subject=name,
        reference="" if name == BASE else BASE,
        layer=layer,
        module="residual stream",
        position=POSITIONS[place],
        metric=metric,
        n=reading.n,
        nulls=(null,),
        **wilson(reading.hits, reading.n)._asdict(),
    )
