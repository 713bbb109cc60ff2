"""The contamination gate: what is trained on, compared with what is tested, before anything is trained.

Levels, from the same text to the same words:

- `exact`: question and choices, letter by letter;
- `normalised`: the same without case, spacing, full stops and commas (mathematics: without spacing and case only);
- `skeleton`: the same operations and numbers under other names, where a synthetic task says what they are;
- `masked`: the question, or the story before it, is the same but for its numbers and signs; choices do not count;
- `13-gram`: thirteen words in a row are shared (Brown et al. 2020, appendix C).

The first three stop a run between what is taught and what is tested unless the recipe allows the pair by name; all
others are told. Two problems of synthetic tasks share words by construction and are compared by skeleton alone.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.files import read_lines, write_lines
from stillroom.records import Overlap, Problem
from stillroom.store import Workplace

VERSION = 1
LEVELS = ("exact", "normalised", "skeleton", "masked", "13-gram")
STOPPING = LEVELS[:3]
ROLES = ("taught", "chosen on", "tested")
"""What a split is used for; `chosen on` selects layers and positions."""
TAUGHT = ROLES[0]
PURPOSES = {"train": TAUGHT, "narrated": TAUGHT, "validation": "chosen on"}
PROBLEMS = "problems"
"""The parent that holds the task that is trained on."""
GRAM = 13
EXAMPLES = 5

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
PROSE = re.compile(r"(?<=[^\W\d])-|-(?=[^\W\d])|(?<!\d)\.|\.(?!\d)|(?<=\d),(?=\d{3})|[^\w\s.+*/=^<>%-]|_")


class ContaminationConfig(Config):
    allow: tuple[str, ...]
    """Pairs that may overlap, written as the error names them: `svamp/train x mawps/test`."""
    tasks: dict[str, str]
    """The task's name by the role of each parent; of `problems` all splits count, of the others those for testing."""


class Split(NamedTuple):
    """The problems of one split of one task."""

    name: str
    """`task/split`."""
    role: str
    """One of `ROLES`."""
    problems: Sequence[Problem]


def words(text: str, kind: str = "numeric") -> str:
    """The text as it is compared: NFKC, lower case, single blanks; prose without its punctuation, signs kept."""
    text = unicodedata.normalize("NFKC", text).lower()
    if kind == "math":
        return "".join(text.split())
    return " ".join(PROSE.sub(lambda mark: "" if mark[0] == "," else " ", text).split())


def masked(text: str) -> str:
    """Letters only, and a word for every number."""
    text = NUMBER.sub(" number ", unicodedata.normalize("NFKC", text).lower())
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def stem(problem: Problem) -> str:
    """The question without its options."""
    return problem.story if problem.choices and problem.story else problem.question


def normalised(problem: Problem) -> Hashable:
    """What two problems share that are the same but for case, spacing, punctuation and the order of their options."""
    kind = problem.kind
    return words(stem(problem), kind), tuple(sorted(words(choice, kind) for choice in problem.choices))


def marks(problem: Problem) -> Iterator[tuple[str, Hashable]]:
    """All that another problem must not share, each with its level."""
    question = stem(problem)
    yield "exact", (question, problem.choices)
    yield "normalised", normalised(problem)
    if problem.skeleton:
        yield "skeleton", (problem.task, problem.skeleton)
        return
    yield "masked", masked(question)
    if problem.story:
        yield "masked", ("story", masked(problem.story))
    row = words(question).split()
    yield from (("13-gram", tuple(row[at : at + GRAM])) for at in range(len(row) - GRAM + 1))


def compare(splits: Sequence[Split]) -> list[Overlap]:
    """How many problems of each split that is tested or chosen on are met in another, level by level.

    Of two splits that are used alike the larger one stands on the left.
    """
    ranked = sorted(splits, key=lambda split: (ROLES.index(split.role), -len(split.problems), split.name))
    homes: dict[tuple[str, Hashable], list[tuple[int, int]]] = defaultdict(list)
    for at, split in enumerate(ranked):
        for row, problem in enumerate(split.problems if split.role != TAUGHT else ()):
            for mark in marks(problem):
                homes[mark].append((at, row))
    return [overlap for at in range(len(ranked)) for overlap in _met(ranked, at, homes)]


def _met(
    ranked: Sequence[Split], at: int, homes: Mapping[tuple[str, Hashable], Sequence[tuple[int, int]]]
) -> Iterator[Overlap]:
    """What the splits behind the one at `at` share with it."""
    met: dict[tuple[int, str], dict[int, str]] = defaultdict(dict)
    for problem in ranked[at].problems:
        for mark in marks(problem):
            for other, row in homes.get(mark, ()):
                if other > at:
                    met[other, mark[0]].setdefault(row, problem.id)
    for (other, level), pairs in sorted(met.items(), key=lambda item: (item[0][0], LEVELS.index(item[0][1]))):
        left, right = ranked[at], ranked[other]
        examples = tuple((pairs[row], right.problems[row].id) for row in sorted(pairs)[:EXAMPLES])
        yield Overlap(
            left=left.name, right=right.name, role=left.role, level=level,
            count=len(pairs), n=len(right.problems), examples=examples,
        )  # fmt: skip


def refuse(found: Iterable[Overlap], allow: Sequence[str]) -> None:
    """Raise `DataError` when tested or validation problems are also taught and the pair is not allowed by name."""
    bad = [o for o in found if o.role == TAUGHT and o.level in STOPPING and pair(o) not in allow]
    if bad:
        told = "; ".join(
            f"{pair(o)}: {o.count} of {o.n} are the same ({o.level}), the first is {o.examples[0][1]!r}" for o in bad
        )
        names = ", ".join(sorted({f'"{pair(o)}"' for o in bad}))
        raise DataError(
            f"problems that are taught are also tested. {told}. Leave a split or a task out, or allow it: "
            f"allow_overlap=[{names}]"
        )


def pair(overlap: Overlap) -> str:
    return f"{overlap.left} x {overlap.right}"


def make_overlaps(config: ContaminationConfig, at: Workplace) -> None:
    """Stage `contamination`: the table of all overlaps."""
    splits = [
        Split(f"{task}/{path.stem}", PURPOSES.get(path.stem, "tested"), read_lines(path, Problem))
        for role, task in config.tasks.items()
        for path in sorted(at.parents[role].glob("*.jsonl"))
        if role == PROBLEMS or path.stem not in PURPOSES
    ]
    found = compare(splits)
    refuse(found, config.allow)
    write_lines(at.out / "overlaps.jsonl", found)
