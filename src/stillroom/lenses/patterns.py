"""One head's attention on one problem, token by token, to be drawn: an illustration beside the numbers of `attention`.

The head is the one that moved most on validation problems. The problem is the test problem on which it moved as far as
on half of them, so that what is drawn is typical. Beside each token's weight stand what even attention would put there
and what the reference does at the same token, where it has it.
"""

from collections.abc import Iterator, Sequence

from stillroom.lenses.reading import word
from stillroom.lenses.texts import END, Text
from stillroom.records import Finding, Null
from stillroom.students import Student

PATTERN = "attention to the token"


def labels(student: Student, text: Text) -> list[str]:
    """What stands at each position, with its number from 1."""
    thoughts = {at: f"thought {j}" for j, at in enumerate(text.spans["thoughts"], 1)}
    return [f"{at + 1} {thoughts.get(at) or word(student, token) or '␣'}" for at, token in enumerate(text.ids)]


def counterparts(own: Text, other: Text) -> list[int | None]:
    """For each position the other text's with the same word; None for pauses, thoughts and the tokens around them."""
    end, behind = own.spans[END][0] + 1, other.words - own.words
    return [at if at < end else at + behind if at >= own.words else None for at in range(len(own.ids))]


def typical(moved_N: Sequence[float]) -> int:
    """The row in the middle, by how far it moved."""
    return sorted(range(len(moved_N)), key=lambda row: moved_N[row])[len(moved_N) // 2]


def pattern(
    chosen: Finding, student: Student, texts: tuple[Text, Text], weights: tuple[Sequence[float], Sequence[float]]
) -> Iterator[Finding]:
    """The weights of subject and reference on one problem as findings of one text each, at the chosen head."""
    mine, theirs = weights
    even = Null(name="even attention", value=1 / len(mine), low=1 / len(mine), high=1 / len(mine))
    places = zip(labels(student, texts[0]), mine, counterparts(*texts), strict=True)
    for place, value, there in places:
        nulls = [even]
        if there is not None:
            nulls.append(Null(name=chosen.reference, value=theirs[there], low=theirs[there], high=theirs[there]))
        told = {"value": value, "low": value, "high": value, "n": 1, "nulls": tuple(nulls), "p": None, "adjusted": None}
        yield chosen.model_copy(update={"metric": PATTERN, "position": place, **told})
