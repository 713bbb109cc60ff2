"""Steering: a latent's direction added while the subject answers, beside random directions of equal length.

A strength of 1 is what the latent writes at its largest value, so that no strength is beyond what the model shows by
itself. Baek & Tegmark's demonstration (arXiv 2503.03730) is one sample an example at an arbitrary length, with nothing
beside it; here every problem is answered without steering, with it, and along random directions.

Legend: B problems, D width.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from stillroom import activations
from stillroom.activations import Place
from stillroom.config import Config
from stillroom.crosscoder.causal import random_direction, steer, steering
from stillroom.crosscoder.exam import Exam
from stillroom.crosscoder.measuring import Address, Described
from stillroom.decoding import Completion, Sampling, decode_all
from stillroom.evaluation import judge
from stillroom.records import Finding, Null, Prediction
from stillroom.stats import bootstrap_mean

CONTROLS = 3
"""Random directions whose mean is the control of each latent."""
BATCH = 128


class SteeringConfig(Config):
    """How far a category's latents are pushed while the subject answers."""

    latents: int = Field(2, ge=1)
    """Of each category, the most one-sided of those that were found for it."""
    strengths: tuple[float, ...] = (-1.0, 1.0)
    """In units of the latent's own largest value."""
    problems: int = Field(50, ge=1)
    """Test problems of the category that are answered."""
    samples: int = Field(1, ge=1)
    """Answers to each: a single one is greedy, several are drawn at `temperature`."""
    temperature: float = Field(1.0, gt=0)
    new_tokens: int = Field(64, ge=1)


@dataclass(frozen=True)
class Answered:
    """Of each problem (B): tokens of its answers and the share of them that is right, both means over samples."""

    tokens_B: Tensor
    right_B: Tensor

    def measures(self) -> dict[str, Tensor]:
        return {"tokens": self.tokens_B, "accuracy": self.right_B}


def answered(exam: Exam, config: SteeringConfig, direction_D: Tensor | None, strength: float = 0.0) -> Answered:
    """The exam's problems answered by the subject, steered at every token along a direction unless it is None."""
    student, problems = exam.student, exam.problems[: config.problems]
    prompts = student.prompts([problem.question for problem in problems])
    edit = {} if direction_D is None else {Place(exam.abreast.layer, "residual"): steer(direction_D, strength)}
    tokens_SB, right_SB = [], []
    for sample in range(config.samples):
        drawn = Sampling(config.temperature, sample * len(prompts)) if config.samples > 1 else None
        found: dict[int, Completion] = {}
        with torch.inference_mode(), activations.changed(student.model, edit) if edit else nullcontext():
            for done in decode_all(
                student.model, prompts, config.new_tokens, int(student.tokenizer.pad_token_id), student.stops, BATCH,
                sampling=drawn,
            ):  # fmt: skip
                found |= done
        rows = [found[row] for row in range(len(prompts))]
        told = [
            Prediction(
                problem=problem.id, text=student.tokenizer.decode(row.ids, skip_special_tokens=True),
                tokens=len(row.ids), stopped=row.stopped,
            )
            for problem, row in zip(problems, rows, strict=True)
        ]  # fmt: skip
        tokens_SB.append(torch.tensor([float(len(row.ids)) for row in rows]))
        right_SB.append(torch.tensor([float(verdict.correct) for verdict in judge(problems, told)]))
    return Answered(torch.stack(tokens_SB).mean(dim=0), torch.stack(right_SB).mean(dim=0))


def steered(
    address: Address, real: Described, exam: Exam, name: str, found_K: Tensor, config: SteeringConfig
) -> Iterator[Finding]:
    """Token counts and accuracy for each latent and strength, and how far both lie from the random directions'.

    The second is paired by problem: where its interval holds 0, the direction was nothing special. Its nulls are the
    same difference of answers that are not steered, and of one random direction from the others.
    """
    if not len(found_K) or not exam.problems:
        return
    plain = answered(exam, config, None).measures()
    for latent in found_K[real.nrn_F[found_K].argsort(descending=True)][: config.latents].tolist():
        direction_D = steering(real.crosscoder, latent, real.fires)
        for strength in config.strengths:
            pushed = answered(exam, config, direction_D, strength).measures()
            controls = [
                answered(exam, config, random_direction(direction_D.cpu(), seed), strength).measures()
                for seed in range(CONTROLS)
            ]
            for what, value_B in pushed.items():
                first_B, *rest = control_CB = torch.stack([control[what] for control in controls])
                control_B, others_B = control_CB.mean(dim=0), torch.stack(rest).mean(dim=0)
                told = f"{what} with latent {latent} at strength {strength:+g}"
                levels = _nulls(plain[what], control_B)
                yield address.finding(told, bootstrap_mean(value_B.numpy()), len(value_B), levels, name)
                beyond = bootstrap_mean((value_B - control_B).numpy())
                chance = _nulls(plain[what] - control_B, first_B - others_B)
                yield address.finding(f"{told}, beyond random directions", beyond, len(value_B), chance, name)


def _nulls(plain_B: Tensor, random_B: Tensor) -> list[Null]:
    told = {"not steered": plain_B, "random directions": random_B}
    return [Null(name=name, **bootstrap_mean(null_B.numpy())._asdict()) for name, null_B in told.items()]
