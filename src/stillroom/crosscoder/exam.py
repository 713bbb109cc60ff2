"""What the latents found for a category of tokens do: to answers, and to the logits of what comes next, when they are
taken out of the subject, beside a control that is matched in frequency and mass, random latents, the reconstruction.

Legend: B problems, F latents, K latents of a set.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillroom.crosscoder.causal import Abreast, Mode, drawn, logit_changes, matched
from stillroom.crosscoder.features import chosen
from stillroom.crosscoder.measuring import Address, Described
from stillroom.evaluation import judge
from stillroom.records import Finding, Null, Prediction, Problem
from stillroom.stats import Interval, bootstrap_mean
from stillroom.students import Student
from stillroom.students.prompts import completions_ids

SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""The paper's shares of the most frequent latents of a category."""
TOLD = 0.2
"""The share by which accuracy is measured."""
LIFT = 1.5
"""How much more often than anywhere a latent fires at the tokens of a step that it is counted for."""
FOUND = "latents found"
UNTOUCHED = "accuracy with nothing taken out"


def category_latents(real: Described, category: str, share: float = TOLD) -> Tensor:
    """Latents found for a category: NRN above ½, among the most frequent `share` at its tokens, and there more than
    elsewhere by `LIFT`."""
    here_F = real.at(category)
    found_K = chosen(real.nrn_F, here_F, share)
    lift_K = (here_F[found_K] / max(1, real.categories.get(category, 0))) / real.fires.frequency[found_K]
    return found_K[lift_K >= LIFT]


@dataclass(frozen=True)
class Exam:
    """Problems of a category, asked of the subject with latents taken out of it, and texts after which a token of the
    category comes next."""

    abreast: Abreast
    student: Student
    problems: Sequence[Problem]
    new_tokens: int
    cues: Sequence[tuple[list[int], list[int]]]
    """(tokens of a text, tokens of which one comes next)."""

    def right(self, latents_K: Tensor | None, mode: Mode = "ablate") -> Tensor:
        """Which answers (B) are right."""
        prompts = self.student.prompts([problem.question for problem in self.problems])
        answers = self.abreast.answers(prompts, self.new_tokens, self.student.stops, latents_K, mode)
        told = [
            Prediction(
                problem=problem.id,
                text=self.student.tokenizer.decode(ids, skip_special_tokens=True),
                tokens=len(ids),
                stopped=len(ids) < self.new_tokens,
            )
            for problem, ids in zip(self.problems, answers, strict=True)
        ]
        return torch.tensor([float(verdict.correct) for verdict in judge(self.problems, told)])

    def logits(self, sets: Sequence[Tensor]) -> Tensor:
        """For each set of latents the change (S, cues) of the mean logit of the tokens of which one comes next."""
        texts, triggers = [text for text, _ in self.cues], [wanted for _, wanted in self.cues]
        return logit_changes(self.abreast, texts, triggers, sets)


def answer_cues(student: Student, problems: Sequence[Problem]) -> list[tuple[list[int], list[int]]]:
    """For each problem the text up to its answer, and the answer's first token."""
    told = [f"The answer is {problem.answer}." for problem in problems]
    whole = completions_ids(told, student.manner.style, student.tokenizer)
    before = completions_ids(["The answer is"], student.manner.style, student.tokenizer)[0]
    asked = student.prompts([problem.question for problem in problems])
    first = (
        next((i for i, (a, b) in enumerate(zip(before, whole[0], strict=False)) if a != b), len(before)) if whole else 0
    )
    return [([*prompt, *ids[:first]], [ids[first]]) for prompt, ids in zip(asked, whole, strict=True)]


def found_for(address: Address, real: Described, nulls: Mapping[str, Described], category: str) -> Finding:
    """How many latents were found for a category, and by the same rule in the null dictionaries: with nothing to find,
    every other live latent has an NRN above ½."""
    count = float(len(category_latents(real, category)))
    others = {name: float(len(category_latents(null, category))) for name, null in nulls.items()}
    told = [Null(name=name, value=value, low=value, high=value) for name, value in others.items()]
    return address.finding(FOUND, Interval(count, count, count), int(real.fires.live.sum()), told, category)


def causes(address: Address, real: Described, exam: Exam, category: str) -> Iterator[Finding]:
    """Accuracy, what of it is lost without a category's latents, and how much more that is than what their matched
    control loses; beside it the loss to the control, to as many random live latents, and to the reconstruction alone.

    The difference is paired by problem, and its null is that of random latents and the same control. Nothing is told
    where no latent was found, where no problem needs the category, or where there are too few to match."""
    set_K = category_latents(real, category)
    pool = (real.fires.live & (real.nrn_F <= 0.5)).nonzero().squeeze(1)
    if not len(set_K) or len(pool) < len(set_K) or not exam.problems:
        return
    live = real.fires.live.nonzero().squeeze(1)
    control_K, random_K = matched(set_K, pool, real.fires), drawn(len(set_K), live, 0)
    whole, ablated, control, random = (exam.right(latents_K) for latents_K in (None, set_K, control_K, random_K))
    others = {
        "matched control": whole - control,
        "random latents": whole - random,
        "reconstruction only": whole - exam.right(set_K[:0], "replace"),
    }
    n, where = len(whole), f"problems with {category}"
    yield address.finding(UNTOUCHED, bootstrap_mean(whole.numpy()), n, position=where)
    lost = f"accuracy lost without the {len(set_K)} latents of {category}"
    yield address.finding(lost, bootstrap_mean((whole - ablated).numpy()), n, _nulls(others), where)
    beyond = bootstrap_mean((control - ablated).numpy())
    chance = _nulls({"random latents": control - random})
    yield address.finding(f"accuracy lost to {category} beyond its matched control", beyond, n, chance, where)


def by_share(address: Address, real: Described, exam: Exam, category: str) -> Iterator[Finding]:
    """Change of the logit of what comes next without a category's most frequent latents with NRN above ½, by share."""
    pool = (real.fires.live & (real.nrn_F <= 0.5)).nonzero().squeeze(1)
    sets = {share: chosen(real.nrn_F, real.at(category), share) for share in SHARES}
    told = {share: set_K for share, set_K in sets.items() if 0 < len(set_K) <= len(pool)}
    if not told or not exam.cues:
        return
    live = real.fires.live.nonzero().squeeze(1)
    asked = [
        one for set_K in told.values() for one in (set_K, matched(set_K, pool, real.fires), drawn(len(set_K), live, 0))
    ]
    for share, (found, control, random) in zip(told, exam.logits(asked).view(len(told), 3, -1), strict=True):
        nulls = _nulls({"matched control": control, "random latents": random})
        change = bootstrap_mean(found.numpy())
        yield address.finding(f"change of logit, top {100 * share:g} %", change, len(exam.cues), nulls, category)


def _nulls(samples: Mapping[str, Tensor]) -> list[Null]:
    return [Null(name=name, **bootstrap_mean(values.numpy())._asdict()) for name, values in samples.items()]
