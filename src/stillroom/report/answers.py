"""The questions of every report, answered in a few sentences from a run's evidence, or left open."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from stillroom.records import Finding, Null, Score
from stillroom.report.evidence import SIGNIFICANT, Evidence, percent, place, rivals, share, spread, strongest, unseeded
from stillroom.report.suits import UNCOMPARED, suits
from stillroom.report.thinking import UNTHOUGHT, carries
from stillroom.stats import difference

VALUE, NUMBER = re.compile(r"value (\d+)"), re.compile(r"number (\d+)")


class Answer(NamedTuple):
    question: str
    sentences: list[str]


def solves(evidence: Evidence) -> list[str]:
    """Train minus test at equal numbers of steps, and the splits that memory cannot serve, each beside its null."""
    sentences = []
    for name in evidence.students():
        train, test = evidence.score(name, "train"), evidence.score(name, "test")
        if train is None or test is None:
            continue
        sentence = f"{evidence.named(name)}: {share(train)} on training problems, {share(test)} on test problems."
        sentence += _above(evidence, test, "Test accuracy is")
        memory = _gap(evidence, name)
        sentence += memory.said
        for split in evidence.further_splits():
            if beyond := evidence.score(name, split):
                sentence += f" On {split} problems {share(beyond)}.{_above(evidence, beyond, 'That is')}"
        sentences.append(sentence + "".join(_renumbered(evidence, name, memory.established)))
    return sentences


def _above(evidence: Evidence, score: Score, what: str) -> str:
    """A score beside the null of its own split."""
    constant = evidence.score("majority", score.split)
    if constant is None:
        return ""
    above = "above" if score.low > constant.high else "not above"
    return f" {what} {above} the null, the most frequent training answer: {share(constant)}."


class Memory(NamedTuple):
    said: str
    established: bool


def _gap(evidence: Evidence, name: str) -> Memory:
    """By how much more training problems are solved than test problems of as many steps, beside the same of the null:
    the two have another mix of steps, and the longer are the harder."""
    strata = evidence.strata(name, "train", "test")
    if not strata:
        return Memory(
            " No training problems have as many steps as test problems: no memorisation is established.", False
        )
    gap = difference(strata)
    n = sum(of_train + of_test for _, of_train, _, of_test in strata)
    null = difference(rival) if (rival := evidence.strata("majority", "train", "test")) else None
    beside = f", null (the most frequent training answer) {spread(null)}" if null else ""
    established = gap.low > max(0.0, null.high if null else 0.0)
    verdict = "part of its training accuracy is memory" if established else "no memorisation is established"
    said = f" At equal numbers of steps training minus test accuracy is {spread(gap)} (n = {n}){beside}: {verdict}."
    return Memory(said, established)


def _renumbered(evidence: Evidence, student: str, memory: bool) -> Iterator[str]:
    """What other numbers in training problems cost a student, where the run measured it, and whether the copies get
    their originals' answers, without which that alone is no memory."""
    mine = {f.metric: f for f in evidence.measured("memorising", student)}
    for f in (f for metric, f in mine.items() if "with other numbers" in metric):
        null = f.nulls[0]
        worse = f.low > null.high
        verdict = "it does worse on them" if worse else "no difference is established"
        yield (
            f" Other numbers in training problems cost {share(f)}, null (the most frequent training answer) "
            f"{spread(null)}: {verdict}."
        )
        if worse:
            yield from _by_heart(mine.get("copies that were given their original's answer"), memory)
        return


def _by_heart(given: Finding | None, memory: bool) -> Iterator[str]:
    if given is not None:
        null = given.nulls[0]
        recalled = given.low > null.high
        verdict = "answers are known by heart" if recalled else "that answers are known by heart is not established"
        yield (
            f" Of the copies {share(given)} get their original's answer, null ({null.name}) {spread(null)}: {verdict}."
        )
        memory = memory or recalled
    if not memory:
        yield (
            " Where no gap to test problems is established, such a cost does not show memory of problems: the copies' "
            "numbers are drawn otherwise than the task's, and what was learned need not carry over to them."
        )


def lives(evidence: Evidence) -> list[str]:
    """For each student: which values the logit lens reads, what moves the answer when it is replaced, and which layers'
    attention and MLPs it cannot do without."""
    told: dict[str, list[str]] = defaultdict(list)
    for tell in (_read, _moved, _needed):
        for student, sentence in tell(evidence.findings):
            told[student].append(sentence)
    return [f"{student}: {' '.join(sentences)}" for student, sentences in told.items()]


def _read(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    rows = [f for f in findings if f.lens == "logit_lens"]
    chosen = [f for f in rows if f.metric.endswith("in top 5, chosen on validation")]
    plain = {(f.subject, f.metric, f.layer, f.position): f for f in rows}
    for student in dict.fromkeys(f.subject for f in chosen):
        parts = []
        for f in (f for f in chosen if f.subject == student):
            base = plain.get((f.reference, f.metric.partition(",")[0], f.layer, f.position))
            told = f"{f.metric.partition(' in ')[0]} {_verdict(f, base)}: {share(f)} at {place(f)}"
            beside = f", {f.reference} there {spread(base)}" if base else ""
            parts.append(f"{told}, null ({f.nulls[0].name}) {spread(f.nulls[0])}{beside}")
        yield student, f"By the logit lens, among its top 5 tokens: {'; '.join(parts)}."


def _verdict(f: Finding, base: Finding | None) -> str:
    """Read is what lies above its null, and above what the base, which was not taught to solve, shows there."""
    if f.low <= f.nulls[0].high:
        return "not established"
    if _operands_alone(f):
        return "told by the operands alone, not read"
    return "read" if base is None or f.low > base.high else "not established beyond the base"


def _operands_alone(f: Finding) -> bool:
    """Where the value cannot have been computed: at the embedding, unless it is of a thought, which is the student's
    own work; and where fewer numbers stand than value v takes, which are v + 1."""
    if f.layer == 0 and not f.position.startswith("thought"):
        return True
    value, number = VALUE.match(f.metric), NUMBER.fullmatch(f.position)
    return value is not None and number is not None and int(number[1]) <= int(value[1])


def _moved(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """What arithmetic foretells: other insides from a problem with other values, and the answer becomes that one's."""
    for f in findings:
        if f.lens == "patching" and f.metric == "answer moved, chosen on validation":
            null = strongest(f)
            verdict = "the value is used there" if f.low > null.high else "not established"
            told = f"Another problem's state at {place(f)} moves the answer to that problem's in {share(f)}"
            yield f.subject, f"{told}, strongest null ({null.name}) {spread(null)}: {verdict}."


def _needed(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """The parts without which fewer problems are solved than after a random change as large, by the grid's p."""
    rows = [f for f in findings if f.lens == "ablation" and f.position == "all" and f.module in ("attention", "mlp")]
    grid = [f for f in rows if f.metric == "accuracy after mean-ablation"]
    for student in dict.fromkeys(f.subject for f in grid):
        mine = sorted((f for f in grid if f.subject == student), key=lambda f: f.value)
        worse = [f for f in mine if f.value < f.nulls[0].value and f.adjusted is not None and f.adjusted < SIGNIFICANT]
        parts = "; ".join(
            f"{f.module} of layer {f.layer} {spread(f)}, null ({f.nulls[0].name}) {spread(f.nulls[0])}" for f in worse
        )
        told = f"Solved without {parts}" if worse else "That it needs one layer's attention or MLP is not established"
        yield student, f"{told} (n = {mine[0].n})."


def concentrates(evidence: Evidence) -> list[str]:
    """Each layer's share of the squared change between normal and distilled, beside an even spread."""
    rows = [
        f
        for f in evidence.findings
        if f.metric == "share of squared change" and "base" not in (unseeded(f.reference), unseeded(f.subject))
    ]
    sentences = []
    for pair in dict.fromkeys((f.reference, f.subject) for f in rows):
        parts = []
        for f in (f for f in rows if (f.reference, f.subject) == pair):
            even = f.nulls[0].value
            verdict = "more" if f.low > even else "less" if f.high < even else "no more or less"
            where = "outside the layers" if f.layer is None else f"layer {f.layer}"
            parts.append(f"{where} {share(f)}, {verdict} than an even spread ({percent(even)})")
        sentences.append(f"{pair[0]} ↔ {pair[1]}: {'; '.join(parts)}.")
    return sentences


def recovers(evidence: Evidence) -> list[str]:
    """For each student, which values a probe recovers better than every reference that stands beside it, and how much
    of that exceeds what the same probe learns by heart."""
    chosen = [
        f for f in evidence.findings if f.lens == "probes" and f.metric.endswith(" accuracy, chosen on validation")
    ]
    apart = {
        (f.subject, f.metric.partition(" selectivity")[0]): f
        for f in evidence.findings
        if f.lens == "probes" and f.metric.endswith(" selectivity, chosen on validation") and not f.invalid
    }
    sentences = []
    for student in dict.fromkeys(f.subject for f in chosen):
        parts = []
        for f in (f for f in chosen if f.subject == student):
            best = strongest(f)
            verdict = "recovered" if f.low > best.high else "not established"
            value = f.metric.partition(" accuracy")[0]
            told = f"{value} {verdict}: {share(f)} at {place(f)}, strongest null ({best.name}) {spread(best)}"
            selective = apart.get((student, value))
            parts.append(f"{told}, selectivity {spread(selective)}" if selective else told)
        sentences.append(f"{student}: {'; '.join(parts)}.")
    return sentences


def attends(evidence: Evidence) -> list[str]:
    """For every two students the head that moved most, beside the strongest null but the self-diff, which is 0."""
    sentences = []
    for f in evidence.findings:
        if f.lens != "attention" or not f.metric.endswith("bits, chosen on validation"):
            continue
        others = rivals(f)
        if "base" in (unseeded(f.reference), unseeded(f.subject)) or not others:
            continue
        null = max(others, key=lambda other: other.high)
        verdict = "they attend differently" if f.low > null.high else "not established"
        sentences.append(
            f"{f.reference} ↔ {f.subject}, read at {f.position}: {f.module} of layer {f.layer} is furthest apart, "
            f"{bits(f)} (n = {f.n}), strongest null ({null.name}) {bits(null)}: {verdict}."
        )
    return sentences


def bits(measured: Finding | Null) -> str:
    return f"{measured.value:.3f} bits [{measured.low:.3f}, {measured.high:.3f}]"


QUESTIONS: dict[str, Callable[[Evidence], list[str]]] = {
    "Does the distilled student solve problems, or memorise answers?": solves,
    "Where in the network does the compressed reasoning live?": lives,
    "Do the weight differences between normal and distilled concentrate in particular layers?": concentrates,
    "Can linear probes recover intermediate steps from the distilled student's activations?": recovers,
    "Does the distilled student attend differently?": attends,
    "What do the continuous thoughts carry?": carries,
    "Which granularity, format and teacher suit which student?": suits,
}
UNANSWERED = "Not established: no lens of this run measures it."
OPEN: dict[Callable[[Evidence], list[str]], str] = {carries: UNTHOUGHT, suits: UNCOMPARED}
"""What stands where a run has nothing on a question, and which recipe has."""


def questions(evidence: Evidence) -> list[Answer]:
    return [
        Answer(question, answer(evidence) or [OPEN.get(answer, UNANSWERED)]) for question, answer in QUESTIONS.items()
    ]
