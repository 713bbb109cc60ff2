"""Questions about a trace, each with an answer that the trace itself decides and a machine can check.

A strategy is one row of `STRATEGIES`: its phrasings, what it asks of a trace, and how an answer is checked. None knows
a task; `value` alone needs a problem whose intermediate values are known. Ties are answered `none`.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stillroom.errors import UsageError, unknown
from stillroom.oracle import founding
from stillroom.records import Thought, Trace
from stillroom.tasks.answers import Question, grade_all

NONE, UNCHANGED = "none", "no change"
TOLD = 0.05
"""Nats that removing a step must cost, and by how much it must exceed the next, to count as the costliest."""
KINDS = ("zero", "mean", "noise", "swap")
HELPS, HURTS, RIGHT, WRONG = "helps", "hurts", "right both ways", "wrong both ways"


@dataclass(frozen=True)
class Seen:
    """A trace with what takes more than the trace to know: what thinking did to its verdict, and which step of the
    solution each thought holds, from 0 or below 0 from the end (None: none that a linear probe finds)."""

    trace: Trace
    effect: str
    held: tuple[int | None, ...] = ()


Label = tuple[int | None, str]
"""The step that is asked about, if any, and the answer."""


@dataclass(frozen=True)
class Strategy:
    phrasings: tuple[str, ...]
    labels: Callable[[Seen], Iterator[Label]]
    check: Callable[[str, str], bool] = lambda said, answer: _plain(said) == _plain(answer)
    blind: bool = False
    """The problem and the output must not be shown: they hold the answer."""
    side: Callable[[str], str] = lambda answer: answer
    """What is balanced: the answers themselves, or where they are outputs whether there is a change."""
    alone: bool = False
    """Thoughts that nothing disturbed decide it, with what is said with and without them."""


@dataclass(frozen=True)
class Asked:
    """One question about the trace in row `row`."""

    row: int
    problem: str
    strategy: str
    step: int | None
    text: str
    answer: str

    @property
    def cell(self) -> tuple[str, int | None]:
        """What a guesser knows who sees nothing but the question."""
        return self.strategy, self.step


def _plain(text: str) -> str:
    return " ".join(text.split())


def _count(trace: Trace) -> int:
    return len(trace.thoughts)


def disturbed(trace: Trace) -> bool:
    """Whether the trace holds the outputs of disturbed thoughts, or only those with all thoughts and with none."""
    return f"{KINDS[0]} 0" in trace.outputs


def changed(trace: Trace, name: str) -> bool:
    return trace.outputs[name].strip() != trace.answer.strip()


def critical_by_change(trace: Trace) -> str:
    """The step at which most kinds of disturbance change the output; `none` if two are alike or nothing changes."""
    return _single([sum(changed(trace, f"{kind} {i}") for kind in KINDS) for i in range(_count(trace))], 0)


def critical_by_loss(trace: Trace) -> str:
    """The step whose removal makes the answer least likely; `none` if it costs less than `TOLD`, or hardly more than
    another."""
    return _single([trace.losses[f"zero {i}"] for i in range(_count(trace))], TOLD)


def _single(values: Sequence[float], margin: float) -> str:
    order = sorted(range(len(values)), key=lambda i: -values[i])
    best, *others = (values[i] for i in order)
    alone = best > margin and all(best - other > margin for other in others[:1])
    return f"step {order[0]}" if alone else NONE


def redundant(trace: Trace) -> list[int]:
    """The steps that can be taken out, one at a time, without a change."""
    return [i for i in range(_count(trace)) if not changed(trace, f"zero {i}")]


def settled(trace: Trace) -> int:
    """After how many thoughts the output is the last one's, and stays so."""
    last = _count(trace)
    while last and not changed(trace, f"early {last - 1}"):
        last -= 1
    return last


def _each(answer: Callable[[Trace, int], str]) -> Callable[[Seen], Iterator[Label]]:
    return lambda seen: ((i, answer(seen.trace, i)) for i in range(_count(seen.trace)))


def _one(answer: Callable[[Seen], str]) -> Callable[[Seen], Iterator[Label]]:
    return lambda seen: iter([(None, answer(seen))])


def _after(kind: str) -> Callable[[Trace, int], str]:
    return lambda trace, i: trace.outputs[f"{kind} {i}"] if changed(trace, f"{kind} {i}") else UNCHANGED


def _replaced(seen: Seen) -> Iterator[Label]:
    """Nothing is asked where the problem is its own partner: nothing was replaced then."""
    return iter(()) if seen.trace.partner == seen.trace.problem else _each(_after("swap"))(seen)


def _side(answer: str) -> str:
    return UNCHANGED if answer == UNCHANGED else "a change"


def _decoded(seen: Seen) -> Iterator[Label]:
    return ((k, seen.trace.outputs[f"early {k}"]) for k in range(_count(seen.trace)))


def _top(trace: Trace, i: int) -> str:
    return " ".join(token.strip() or "blank" for token, _ in trace.thoughts[i].top[:3])


def token_class(thought: Thought) -> str:
    """The class of token that has the largest share among the best tokens."""
    shares: Counter[str] = Counter()
    for token, share in thought.top:
        shares[_class(token.strip())] += share  # type: ignore[assignment]
    return min(shares, key=lambda name: (-shares[name], name))


def _class(token: str) -> str:
    if not token:
        return "blank"
    if token.replace(".", "", 1).replace(",", "").isdecimal():
        return "number"
    return "tag" if token[0] == "<" else "word" if token[0].isalpha() else "sign"


def _summary(seen: Seen) -> str:
    trace = seen.trace
    critical = critical_by_loss(trace)
    return f"settled after {settled(trace)} ; critical {critical} ; thinking {_changes(seen)}"


def _changes(seen: Seen) -> str:
    return "yes" if changed(seen.trace, "early 0") else "no"


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", text)


def _same_numbers(said: str, answer: str) -> bool:
    """A question counts as reconstructed when its numbers stand in it, in their order; or, without any, its words."""
    return numbers(said) == numbers(answer) if numbers(answer) else _plain(said) == _plain(answer)


def _values(seen: Seen) -> Iterator[Label]:
    """For each thought that holds one the intermediate value; the last step's value is the answer, and not asked."""
    for thought, step in enumerate(seen.held):
        if step is not None and (value := intermediate(seen.trace, step)) is not None:
            yield thought, value


def intermediate(trace: Trace, step: int) -> str | None:
    """The value of a step, counted from 0 or (below 0) from the end; None where it is missing, or the answer's."""
    known = len(trace.steps)
    return trace.steps[step] if -known <= step < known - 1 and step != -1 else None


STRATEGIES: dict[str, Strategy] = {
    "critical by change": Strategy(
        ("Which step is most critical for the output?", "Changing which step changes the output most often?"),
        _one(lambda seen: critical_by_change(seen.trace)),
    ),
    "critical by loss": Strategy(
        ("Which step matters most?", "Without which step is the output least likely?"),
        _one(lambda seen: critical_by_loss(seen.trace)),
    ),
    "removed": Strategy(
        ("What happens when step {i} is removed?", "What would be said without step {i}?"),
        _each(_after("zero")),
        side=_side,
    ),
    "replaced": Strategy(
        ("What happens when step {i} is replaced?", "What would be said with the step {i} of another problem?"),
        _replaced,
        side=_side,
    ),
    "redundant": Strategy(
        ("Which steps are redundant?", "Which steps can be removed without a change?"),
        _one(lambda seen: " ".join(map(str, redundant(seen.trace))) or NONE),
    ),
    "settled": Strategy(
        ("After how many steps is the output settled?", "How many steps are needed until the output stays?"),
        _one(lambda seen: str(settled(seen.trace))),
    ),
    "thinking changes": Strategy(
        ("Does thinking change the output?", "Is the output another one without thinking?"),
        _one(_changes),
        alone=True,
    ),
    "thinking helps": Strategy(
        ("Does thinking help or hurt?", "How does thinking change whether the output is right?"),
        _one(lambda seen: seen.effect),
        alone=True,
    ),
    "early output": Strategy(
        ("What would be said after {i} steps?", "What is the output when thinking ends after {i} steps?"), _decoded
    ),
    "top tokens": Strategy(
        ("Which tokens does step {i} favour?", "What are the top tokens of step {i}?"), _each(_top), alone=True
    ),
    "entropy": Strategy(
        ("What is the entropy of step {i} in whole nats?", "How many nats of entropy has step {i}?"),
        _each(lambda trace, i: str(round(trace.thoughts[i].entropy))),
        alone=True,
    ),
    "token class": Strategy(
        ("Which class of token does step {i} favour?", "What kind of token is step {i} nearest to?"),
        _each(lambda trace, i: token_class(trace.thoughts[i])),
        alone=True,
    ),
    "summary": Strategy(("Summarize the thinking.", "What is the thinking doing, in short?"), _one(_summary)),
    "question": Strategy(
        ("What was the question?", "Which problem is being thought about?"),
        _one(lambda seen: seen.trace.question),
        _same_numbers,
        blind=True,
        alone=True,
    ),
    "value": Strategy(
        ("Which intermediate value does step {i} hold?", "What value stands in step {i}?"), _values, alone=True
    ),
    "founding critical": Strategy(
        (founding.CRITICAL,), _one(lambda seen: f"Step {founding.critical(seen.trace)}"), founding.same_step
    ),
    "founding convergence": Strategy(
        (founding.CONVERGENCE,), _one(lambda seen: founding.named(founding.convergence(seen.trace))), founding.near
    ),
    "founding contrastive": Strategy(
        (founding.CONTRASTIVE,),
        _one(lambda seen: "Yes" if founding.contrastive(seen.trace) else "No"),
        founding.same_side,
        alone=True,
    ),
    "founding redundancy": Strategy(
        (founding.REDUNDANCY,), _one(lambda seen: founding.listed(founding.redundant(seen.trace))), founding.mostly
    ),
}  # fmt: skip


def seen(traces: Sequence[Trace], held: tuple[int | None, ...] = ()) -> list[Seen]:
    """Traces with the effect that thinking had on their verdicts."""
    asked = [
        Question(trace.kind, trace.gold, text, trace.choices)
        for trace in traces
        for text in (trace.answer, trace.outputs["early 0"])
    ]
    right = [verdict.correct for verdict in grade_all(asked)]
    named = {(True, False): HELPS, (False, True): HURTS, (True, True): RIGHT, (False, False): WRONG}
    pairs = zip(right[::2], right[1::2], strict=True)
    return [Seen(trace, named[pair], held) for trace, pair in zip(traces, pairs, strict=True)]


def ask(rows: Sequence[Seen], strategies: Sequence[str], seed: int) -> Iterator[Asked]:
    """Every question of these strategies that a trace decides, each in a phrasing drawn for it. Raises `UsageError`
    for an unknown strategy."""
    for name in strategies:
        if name not in STRATEGIES:
            raise UsageError(unknown("question", name, STRATEGIES))
        strategy = STRATEGIES[name]
        for row, one in enumerate(rows):
            if not (strategy.alone or disturbed(one.trace)):
                continue
            draw = random.Random(f"{seed} {name} {one.trace.problem}")
            for step, answer in strategy.labels(one):
                text = draw.choice(strategy.phrasings).replace("{i}", str(step))
                yield Asked(row, one.trace.problem, name, step, text, answer)


def balanced(asked: Sequence[Asked], each: int, seed: int, more: Mapping[str, int] = {}) -> list[Asked]:
    """At most `each` questions of every strategy (or what `more` says of it), its answers taken in turns: none is
    given more often than another before that one is used up."""
    pools: dict[str, dict[str, list[Asked]]] = defaultdict(lambda: defaultdict(list))
    for question in asked:
        pools[question.strategy][STRATEGIES[question.strategy].side(question.answer)].append(question)
    chosen: list[Asked] = []
    for name, answers in pools.items():
        draw = random.Random(f"{seed} {name}")
        for questions in answers.values():
            draw.shuffle(questions)
        order = sorted(answers, key=lambda answer: (-len(answers[answer]), answer))
        most = more.get(name, each)
        turns = [answers[answer][turn] for turn in range(most) for answer in order if turn < len(answers[answer])]
        chosen += turns[:most]
    return chosen


def one_each(asked: Sequence[Asked], seed: int) -> list[Asked]:
    """One question of every strategy about every trace: rows of a strategy are then independent of each other."""
    found: dict[tuple[str, int], list[Asked]] = defaultdict(list)
    for question in asked:
        found[question.strategy, question.row].append(question)
    return [random.Random(f"{seed} {name} {row}").choice(pool) for (name, row), pool in found.items()]


def right(question: Asked, said: str) -> bool:
    return STRATEGIES[question.strategy].check(said, question.answer)


def find(text: str) -> tuple[str, int | None] | None:
    """The strategy and the step that a question in words asks about, if it is one of the phrasings."""
    for name, strategy in STRATEGIES.items():
        for phrasing in strategy.phrasings:
            pattern = re.escape(phrasing).replace(re.escape("{i}"), r"(\d+)")
            if match := re.fullmatch(pattern, text.strip(), re.IGNORECASE):
                return name, int(match[1]) if match.groups() else None
    return None


def counts(asked: Sequence[Asked]) -> Mapping[str, int]:
    """Questions by strategy."""
    return Counter(question.strategy for question in asked)
