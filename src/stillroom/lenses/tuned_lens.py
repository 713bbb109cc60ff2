"""Tuned lens (Belrose et al. 2023, arXiv 2303.08112): the logit lens behind an affine map that each layer learns.

    logits_l = unembed(h_l + A_l h_l + b_l),   A_l, b_l minimise KL(model's output ‖ softmax(logits_l)) + decay |A_l|²

The maps are fitted on training problems (validation problems where there are none), by L-BFGS from A = 0, b = 0, on the
vectors of all places of the silent text. A map that is fitted on some places need not serve others: each lens is fitted
on the student and the places that it then reads.

Legend: N vectors, D width, V vocabulary, L layers.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from stillroom.activations import final_norm, logits
from stillroom.config import Config
from stillroom.lenses.logit_lens import Translate, deepest, plain, report
from stillroom.lenses.reading import finite
from stillroom.lenses.selection import in_stream, invalid
from stillroom.lenses.silent import Silent, read_silent
from stillroom.lenses.subjects import Subjects
from stillroom.records import Finding, Null
from stillroom.stats import Interval, bootstrap_means
from stillroom.students import Student

PLACES, DIVERGENCE = "all places", "divergence from the output (nats)"


class TunedLensConfig(Config):
    name: Literal["tuned_lens"] = "tuned_lens"
    batch_size: int = Field(64, ge=1)
    problems: int = Field(300, ge=1)
    """How many training problems the maps are fitted on."""
    vectors: int = Field(2048, ge=1)
    """At most so many of their vectors, evenly spaced."""
    iterations: int = Field(40, ge=1)
    decay: float = Field(1e-3, ge=0)


class Map(nn.Module):
    """h + A h + b, which begins as h."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Linear(width, width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        moved: Tensor = hidden + self.change(hidden)
        return moved


def logits_of(student: Student, hidden: Tensor) -> Tensor:
    """As `activations.unembed`, with gradients."""
    return logits(student.model, final_norm(student.model)(hidden))


def fit(student: Student, hidden_ND: Tensor, output_NV: Tensor, iterations: int, decay: float) -> Map:
    """One layer's map; `output_NV` are the log-probabilities that the model ends with. Raises `DataError` on NaN."""
    lens = Map(hidden_ND.shape[1]).to(hidden_ND)
    solver = torch.optim.LBFGS(lens.parameters(), max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        guessed_NV = functional.log_softmax(logits_of(student, lens(hidden_ND)), dim=-1)
        told = functional.kl_div(guessed_NV, output_NV, reduction="batchmean", log_target=True)
        total: Tensor = told + decay * lens.change.weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    finite(lens.change.weight, "a tuned lens")
    return lens.requires_grad_(False)


def fit_all(student: Student, silent: Silent, config: TunedLensConfig) -> list[Map]:
    """A map for every layer but the last, whose reading is the model's output already."""
    frozen = [p for p in student.model.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    vectors_LND = silent.stream_LPBD.flatten(1, 2).to(student.model.device, student.model.dtype)
    count = vectors_LND.shape[1]
    kept = torch.linspace(0, count - 1, min(count, config.vectors)).long()
    try:
        output_NV = functional.log_softmax(logits_of(student, vectors_LND[-1, kept]), dim=-1).detach()
        return [fit(student, layer[kept], output_NV, config.iterations, config.decay) for layer in vectors_LND[:-1]]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def tuned(student: Student, maps: Sequence[Map]) -> Translate:
    """The lens: each layer through its map, the last as it is."""
    straight = plain(student)
    return lambda layer, hidden: straight(layer, maps[layer](hidden) if layer < len(maps) else hidden)


def look(config: TunedLensConfig, subjects: Subjects) -> list[Finding]:
    """As the logit lens through maps that are fitted for each student; marked invalid where too little is to fit on."""
    learned_on = "train" if subjects.problems.get("train") else "validation"
    splits = deepest(subjects, "validation", "test")
    findings: list[Finding] = []
    for name, student in subjects.readers() if splits else ():
        count = len(splits["test"][0].steps)
        taught = [p for p in subjects.problems[learned_on] if len(p.steps) == count][: config.problems]
        silent = {split: read_silent(student, problems, config.batch_size) for split, problems in splits.items()}
        taught = taught or splits["validation"]
        learned = read_silent(student, taught, config.batch_size)
        _, places, rows, width = learned.stream_LPBD.shape
        if (vectors := min(places * rows, config.vectors)) <= width:
            reason = f"{vectors} vectors for {width} dimensions: a map would fit anything; give it more problems"
            findings.append(invalid(reason, **in_stream("tuned_lens", name, None, PLACES, DIVERGENCE), n=vectors))
            continue
        maps = fit_all(student, learned, config)
        lens = tuned(student, maps)
        findings += report(config.name, name, student, splits, silent, lens, {"logit lens": (student, silent["test"])})
        findings += divergences(name, student, silent["test"], lens)
    return findings


@torch.inference_mode()
def divergences(name: str, student: Student, silent: Silent, lens: Translate) -> list[Finding]:
    """KL(output ‖ lens) by layer in nats, a mean over places, bootstrapped over problems, beside the logit lens."""
    straight = plain(student)
    findings = []
    for layer, stream_PBD in enumerate(silent.stream_LPBD[:-1]):
        rows = []
        for translate in (lens, straight):
            by_place = []
            for hidden_BD, last_BD in zip(stream_PBD, silent.stream_LPBD[-1], strict=True):
                out_BV, guess_BV = (
                    functional.log_softmax(translate_(at, h.to(student.model.device, student.model.dtype)).float(), -1)
                    for translate_, at, h in ((straight, -1, last_BD), (translate, layer, hidden_BD))
                )
                by_place.append(functional.kl_div(guess_BV, out_BV, reduction="none", log_target=True).sum(-1).cpu())
            rows.append(torch.stack(by_place).mean(0))
        mine, null = (Interval(*column) for column in bootstrap_means(torch.stack(rows, dim=1).numpy()).T.tolist())
        nulls = (Null(name="logit lens", **null._asdict()),)
        findings.append(
            Finding(
                **in_stream("tuned_lens", name, layer, PLACES, DIVERGENCE),
                n=stream_PBD.shape[1],
                nulls=nulls,
                **mine._asdict(),
            )
        )
    return findings
