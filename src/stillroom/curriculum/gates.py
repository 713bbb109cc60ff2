"""Gates: which rationales students are shown. Every one that is not is kept beside them with its reason.

In this order: cut off by the length limit; empty (fewer than `FEWEST` words); admitting that the answer was seen; wrong
by the grader, or against the majority of the samples where a problem has no gold; nearly the same as a sample that is
kept. A rationale that states no answer of its own (`worked`, `human`) is taken to end in the gold.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from pydantic import Field

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.files import read_lines, write_json, write_lines
from stillroom.progress import say
from stillroom.records import Dropped, Problem, Rationale
from stillroom.store import Workplace
from stillroom.tasks.answers import Question, grade, grade_all

VERSION = 1
FEWEST = 2
"""Words without which a text holds no reasoning."""
ADMITS = re.compile(
    r"\b(?:(?:given|provided|correct|expected|reference) (?:final )?answer (?:is|was|of|says|states|provided|given)\b"
    r"|(?:as|since|because) the answer (?:is|was) given\b|according to the (?:given |provided )?answer\b"
    r"|(?:match(?:es)?|contradicts?|(?:does not|doesn't) match) the (?:given|provided|expected|correct) answer\b"
    r"|answer (?:key|provided above)\b|\bwait,)",
    re.IGNORECASE,
)
"""What a teacher writes that was shown the answer, or that corrects itself towards it."""


class GateConfig(Config):
    correct: bool = True
    """Drop rationales whose answer is wrong; without it a score of the lessons says how often the teacher errs."""
    alike: float = Field(0.8, gt=0, le=1)
    """Share of word triples (Jaccard) from which on two samples of one problem count as the same."""


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+|[-+*/=]", text.lower())
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def alike(one: str, other: str) -> float:
    """Jaccard similarity of the two texts' word triples: 0 nothing shared, 1 the same."""
    left, right = shingles(one), shingles(other)
    return len(left & right) / len(left | right)


def flaw(text: str, truncated: bool) -> str | None:
    """What is wrong with a rationale as it stands, whatever the problem is."""
    if truncated:
        return "cut off by the length limit"
    if len(text.split()) < FEWEST:
        return "empty"
    return "admits to seeing the answer" if ADMITS.search(text) else None


def wrong(problem: Problem, samples: Sequence[Rationale]) -> dict[int, str]:
    """Reasons by row for samples that end in another answer than the gold, or than most of them where there is none."""
    stated = [row for row, sample in enumerate(samples) if sample.conclusion]
    if problem.answer:
        asked = (Question(problem.kind, problem.answer, samples[row].conclusion, problem.choices) for row in stated)
        verdicts = zip(stated, grade_all(asked), strict=True)
        return {row: f"wrong: {verdict.extracted}" for row, verdict in verdicts if not verdict.correct}
    said = {row: grade(problem.kind, "", samples[row].conclusion, problem.choices).extracted or "" for row in stated}
    votes = Counter(filter(None, said.values()))
    if not votes:
        return dict.fromkeys(stated, "no answer to vote on")
    winner = min(votes, key=lambda answer: (-votes[answer], answer))
    return {row: f"outvoted: {answer or None}" for row, answer in said.items() if answer != winner}


def gate(problem: Problem, samples: Sequence[Rationale], config: GateConfig) -> Iterator[Rationale | Dropped]:
    """Each sample of one problem, in their order, kept or dropped."""
    against = wrong(problem, samples) if config.correct else {}
    kept: list[Rationale] = []
    for row, sample in enumerate(samples):
        reason = flaw(sample.text, sample.truncated) or against.get(row)
        if reason is None and any(alike(sample.text, other.text) >= config.alike for other in kept):
            reason = "nearly the same as another sample"
        if reason is None:
            kept.append(sample)
        yield sample if reason is None else Dropped(reason=reason, rationale=sample)


def make_kept(config: GateConfig, at: Workplace) -> None:
    """Stage `kept`: `rationales.jsonl`, `dropped.jsonl`, and `gates.json` with the counts by reason."""
    problems = read_lines(at.parents["problems"] / "train.jsonl", Problem)
    samples: dict[str, list[Rationale]] = defaultdict(list)
    for rationale in read_lines(at.parents["rationales"] / "rationales.jsonl", Rationale):
        samples[rationale.problem].append(rationale)
    sorted_out = [one for problem in problems for one in gate(problem, samples[problem.id], config)]
    kept = [one for one in sorted_out if isinstance(one, Rationale)]
    dropped = [one for one in sorted_out if isinstance(one, Dropped)]
    reasons = Counter(one.reason.partition(":")[0] for one in dropped)
    if not kept:
        raise DataError(f"the gates dropped all {len(dropped)} rationales: {json.dumps(dict(reasons))}")
    if dropped:
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        say(f"  {at.name}: {len(kept)} rationales kept, {len(dropped)} dropped ({told})")
    write_lines(at.out / "rationales.jsonl", kept)
    write_lines(at.out / "dropped.jsonl", dropped)
    voted = sum(not problem.answer and bool(samples[problem.id]) for problem in problems)
    write_json(at.out / "gates.json", {"kept": len(kept), "dropped": dict(reasons), "problems kept by vote": voted})
