"""CODI: one training step beside the sum of its parts, each timed alone: no pass is made twice and none is wasted.

    .venv/bin/python benchmarks/codi_step.py [--quick]      (--quick: a quarter of the rounds)

The parts are written out by hand, as the paper has them: the teacher's pass, the questions', six passes of one thought
each, the answers', and the backward pass through them all. The step reads a question once for both. Both sides compute
the same terms on the same batch, under bfloat16 autocast as in training, in turn; what is given is the median over
rounds of (step / sum of parts), so that other work on the machine weighs on both.
The last line printed is JSON; the exit code is 0 when every figure holds its bar.
"""

import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from figures import Figure, at_most, close, told_load
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from stillroom.students.batches import IGNORED, padded
from stillroom.students.chains import Chain
from stillroom.students.codi import CodiConfig, CodiObjective, codi_batches, in_words, projection

THREADS, WARMUP, BAR = 2, 2, 1.25
PAD, STOP, BOT, EOT, FIRST = 0, 1, 2, 3, 4


class Case(NamedTuple):
    width: int
    layers: int
    heads: int
    vocabulary: int
    batch: int
    rounds: int


CASES = (Case(128, 4, 4, 128, 32, 40), Case(512, 8, 8, 8000, 8, 20))


def chains(case: Case) -> list[Chain]:
    """Random words in the lengths of grade-school problems."""
    draw = random.Random(0)

    def words(count: int) -> list[int]:
        return [draw.randrange(FIRST, case.vocabulary) for _ in range(count)]

    return [
        Chain(
            problem=str(i),
            prompt=words(draw.randint(40, 80)),
            opening=words(3),
            steps=[words(draw.randint(8, 14)) for _ in range(draw.randint(2, 6))],
            closing=words(3),
            answer=[*words(5), STOP],
            value_at=3,
        )
        for i in range(case.batch)
    ]


def scratch(case: Case) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=case.vocabulary, hidden_size=case.width, intermediate_size=8 * case.width // 3 // 8 * 8,
        num_hidden_layers=case.layers, num_attention_heads=case.heads, num_key_value_heads=case.heads,
        tie_word_embeddings=True, pad_token_id=PAD, eos_token_id=STOP, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # as scratch students are held
    return model.train()


class Clock:
    """Seconds of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def by_hand(
    words: dict[str, Tensor], objective: CodiObjective, tensors: dict[str, Tensor], clock: Clock
) -> dict[str, float]:
    """The parts, each on the clock; returns the terms. `words` are the whole texts that the teacher reads."""
    model, steps = objective.model, objective.config.thoughts
    each_B, length_B = torch.arange(len(tensors["length_B"])), tensors["length_B"]
    question_BQ, answer_BA = tensors["question_BQ"], tensors["answer_BA"]
    at_B = tensors["words_at_B"] + tensors["asked_B"] - 1
    with torch.autocast("cpu", torch.bfloat16):
        with clock("teacher"):
            told = model(
                input_ids=words["input_ids_BT"], logits_to_keep=words["keep_K"], output_hidden_states=True,
                use_cache=False,
            )  # fmt: skip
            teacher = cross_entropy(told.logits, words["labels_BK"])
        with clock("question"):
            cache = DynamicCache()
            body = model.model(input_ids=question_BQ, past_key_values=cache, use_cache=True)
            hidden_Bd = body.last_hidden_state[each_B, length_B - 1]
        seen_BT = torch.arange(question_BQ.shape[1]) < length_B[:, None]
        with clock("thoughts"):
            for step in range(steps):
                seen_BT = nn.functional.pad(seen_BT, (0, 1), value=True)
                body = model.model(
                    inputs_embeds=objective.projection(hidden_Bd)[:, None], attention_mask=seen_BT,
                    position_ids=length_B[:, None] + step, past_key_values=cache, use_cache=True,
                )  # fmt: skip
                hidden_Bd = body.last_hidden_state[:, 0]
        with clock("answer"):
            count = answer_BA.shape[1]
            answered = model(
                input_ids=answer_BA, attention_mask=nn.functional.pad(seen_BT, (0, count), value=True),
                position_ids=length_B[:, None] + steps + torch.arange(count), past_key_values=cache, use_cache=True,
                output_hidden_states=True,
            )  # fmt: skip
            student = cross_entropy(answered.logits, tensors["labels_BK"])
            layers = []
            for told_BSd, own_BAd in zip(told.hidden_states, answered.hidden_states, strict=True):
                target_Bd = told_BSd[each_B, at_B].detach().float()
                own_Bd = own_BAd[each_B, tensors["value_at_B"]].float()
                layers.append(nn.functional.smooth_l1_loss(own_Bd, target_Bd) / target_Bd.std())
            distil = torch.stack(layers).mean()
    with clock("backward"):
        (student + teacher + distil).backward()
    objective.zero_grad()
    return {"student": student.item(), "teacher": teacher.item(), "distil": distil.item()}


def cross_entropy(logits_BKV: Tensor, labels_BK: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits_BKV.float().flatten(0, 1), labels_BK.flatten(), ignore_index=IGNORED)


def ours(objective: CodiObjective, tensors: dict[str, Tensor], clock: Clock) -> dict[str, float]:
    with clock("step"):
        with torch.autocast("cpu", torch.bfloat16):
            terms = objective(**tensors)
        torch.stack(list(terms.values())).sum().backward()
    objective.zero_grad()
    return {name: term.item() for name, term in terms.items()}


def measure(case: Case, rounds: int) -> Figure:
    config = CodiConfig()
    rows = chains(case)
    objective = CodiObjective(scratch(case), projection(config, case.width, 0), config)
    lengths = [len(row.prompt) for row in rows]
    batch = codi_batches(rows, lengths, config, (BOT,), (EOT,), PAD, case.batch, 0)(0, 0, 1)
    words = padded([in_words(rows[int(name)], config) for name in batch.problems], PAD)
    found: list[dict[str, float]] = []
    for i in range(WARMUP + rounds):
        clock = Clock()
        tensors, sides = batch.tensors, [ours, partial(by_hand, words)]
        terms = [side(objective, tensors, clock) for side in (sides if i % 2 else sides[::-1])]
        assert all(abs(terms[0][name] - terms[1][name]) < 0.05 * abs(terms[0][name]) for name in terms[0]), terms
        if i >= WARMUP:
            found.append(clock.seconds)
    median = {name: 1000 * statistics.median(row[name] for row in found) for name in found[0]}
    ratios = [row["step"] / (sum(row.values()) - row["step"]) for row in found]
    told = ", ".join(f"{name} {value:.1f}" for name, value in median.items())
    print(f"width {case.width}, {case.layers} layers, batch {case.batch}, milliseconds: {told}")
    return at_most(
        f"width {case.width}: step / sum of parts", statistics.median(ratios), "x", BAR,
        quartiles=[round(q, 3) for q in statistics.quantiles(ratios, n=4)],
        milliseconds={name: round(value, 2) for name, value in median.items()},
    )  # fmt: skip


def main() -> None:
    torch.set_num_threads(THREADS)
    load = told_load()
    figures = [measure(case, case.rounds // (4 if "--quick" in sys.argv else 1)) for case in CASES]
    close("codi_step", figures, load, "transformers", "torch", threads=THREADS)


if __name__ == "__main__":
    main()
