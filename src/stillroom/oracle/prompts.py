"""What a reader is shown: the texts of its arms, and the tokens that they become.

An arm is one row of `ARMS`. `injection` sees placeholders, on which the thoughts are added, and the question alone;
`text` sees what the founding reader saw (problem, trace in words and numbers, output); the others see what could be
known without any thought. The question that is asked stands last and whole, whatever has to be cut before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from stillroom.errors import UsageError, unknown
from stillroom.oracle.questions import STRATEGIES, Asked
from stillroom.records import Thought, Trace
from stillroom.students.prompts import prompts_ids

PLACE = " ?"
"""One for each thought (Activation Oracles, arXiv 2512.15674)."""
BEFORE = "Thoughts:"


class Arm(NamedTuple):
    """What stands before the question: `problem`, `trace`, `output`; and whether thoughts are added to it."""

    shows: tuple[str, ...] = ()
    injects: bool = False


INJECTION, TEXT, QUESTION, OUTPUT = "injection", "text", "question only", "output only"
ARMS: dict[str, Arm] = {
    INJECTION: Arm(injects=True),
    TEXT: Arm(("problem", "trace", "output")),
    QUESTION: Arm(("problem",)),
    OUTPUT: Arm(("output",)),
}


class Prompt(NamedTuple):
    """Tokens, and the positions among them where thoughts are added."""

    ids: list[int]
    places: tuple[int, ...]


def arm(name: str) -> Arm:
    """Raises `UsageError` for an unknown one."""
    if name not in ARMS:
        raise UsageError(unknown("reader", name, ARMS))
    return ARMS[name]


def serialised(thought: Thought) -> str:
    """One step of a trace in words and whole numbers, which a vocabulary of words holds: tokens with their shares in
    per cent, the entropy in tenths of a nat, the norm, and the cosine to the step before in per cent."""
    top = " ".join(f"{token.strip() or 'blank'} {round(100 * share)}" for token, share in thought.top[:3])
    told = f"Step {thought.step} : {top} entropy {round(10 * thought.entropy)} norm {round(thought.norm)}"
    if (cosine := thought.cosine_to_previous) is not None:
        told += f" cos {'-' if cosine < 0 else '+'} {abs(round(100 * cosine))}"
    return told + "\n"


def shown(trace: Trace, asked: Asked, shows: Sequence[str]) -> str:
    """The text before the question. A question about the problem itself is not shown the problem or the output."""
    blind = STRATEGIES[asked.strategy].blind
    parts = {
        "problem": "" if blind else f"<input>{trace.question}</input>\n",
        "trace": f"<latent_trace>\n{''.join(map(serialised, trace.thoughts))}</latent_trace>\n",
        "output": "" if blind else f"<model_output>{trace.answer}</model_output>\n",
    }
    return "".join(parts[part] for part in shows)


def query(text: str) -> str:
    return f"<query>{text}</query>\n<response>"


def said(answer: str) -> str:
    """An answer as a reader says it: after a blank, so that its first word is the token that texts have."""
    return f" {answer}"


def prompts(
    tokenizer: PreTrainedTokenizerBase, name: str, traces: Sequence[Trace], asked: Sequence[Asked], room: int
) -> list[Prompt]:
    """Prompts of at most `room` tokens: where one would be longer, what stands before the question is cut at its end.

    Raises `UsageError` where the question itself, with the thoughts' places, is longer.
    """
    told = arm(name)
    before = [shown(traces[one.row], one, told.shows) for one in asked]
    places = [BEFORE + PLACE * len(traces[one.row].thoughts) + "\n" if told.injects else "" for one in asked]
    heads, middles = _tokens(before, tokenizer), _tokens(places, tokenizer)
    tails = _tokens([query(one.text) for one in asked], tokenizer)
    (start,) = prompts_ids([""], "bare", tokenizer)  # where a tokenizer wants its texts to begin with a token
    (first,) = _tokens([BEFORE], tokenizer)
    made = []
    for one, head, middle, tail in zip(asked, heads, middles, tails, strict=True):
        left = room - len(start) - len(middle) - len(tail)
        if left < 0:
            raise UsageError(
                f"the question {one.text!r} takes {len(middle) + len(tail)} tokens with its thoughts, and the reader "
                f"holds {room} beside its answer: ask a shorter one, or take a reader with a longer context"
            )
        kept = head[:left]
        count = len(traces[one.row].thoughts) if told.injects else 0
        at = len(start) + len(kept) + len(first)
        made.append(Prompt([*start, *kept, *middle, *tail], tuple(range(at, at + count))))
    _check_places(tokenizer, made, told.injects)
    return made


def _check_places(tokenizer: PreTrainedTokenizerBase, made: Sequence[Prompt], injects: bool) -> None:
    """Each placeholder must be one token, or thoughts would be added elsewhere."""
    if injects and made:
        found = {made[0].ids[place] for place in made[0].places}
        if [*found] != _tokens([PLACE], tokenizer)[0]:
            raise UsageError(
                f"this reader's tokenizer does not read {PLACE!r} as one token "
                f"({tokenizer.convert_ids_to_tokens(sorted(found))}): take another base"
            )


def texts(traces: Sequence[Trace], asked: Sequence[Asked]) -> list[str]:
    """All that any arm may show or say, once, for a tokenizer that is made of it."""
    every = Arm(("problem", "trace", "output")).shows
    about = {(one.row, STRATEGIES[one.strategy].blind): one for one in asked}
    told = [shown(traces[row], one, every) + BEFORE + PLACE + "\n" for (row, _), one in about.items()]
    return [*told, *dict.fromkeys(text for one in asked for text in (query(one.text), said(one.answer)))]


def _tokens(rows: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Each different row is read once: the same few questions are asked about thousands of traces."""
    distinct = list(dict.fromkeys(rows))
    read: list[list[int]] = tokenizer(distinct, add_special_tokens=False)["input_ids"] if distinct else []
    known = dict(zip(distinct, read, strict=True))
    return [known[row] for row in rows]
