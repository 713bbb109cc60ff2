"""Supervised fine-tuning: cross-entropy on the completion and the end of the text, and on nothing else.

Legend: B rows, T tokens, K last positions that may carry a label, V vocabulary.
"""

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stillroom.errors import DataError
from stillroom.records import Lesson
from stillroom.students.prompts import render
from stillroom.training import Batch, Batches

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """One lesson in tokens: the loss touches `completion`, whose last token ends the text."""

    problem: str
    prompt: list[int]
    completion: list[int]


class SftObjective(nn.Module):
    """Mean negative log-likelihood of the labels: the term `ce`, in nats a token."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids_BT: Tensor, labels_BK: Tensor) -> dict[str, Tensor]:
        keep = labels_BK.shape[1] + 1  # logits are computed only where a label follows
        output = self.model(input_ids=input_ids_BT, logits_to_keep=keep, use_cache=False)
        logits_BKV = output.logits[:, :-1].float()
        return {"ce": nn.functional.cross_entropy(logits_BKV.flatten(0, 1), labels_BK.flatten(), ignore_index=IGNORED)}


def encode(
    lessons: Sequence[Lesson], tokenizer: PreTrainedTokenizerBase, style: str, suffix: Sequence[int], longest: int
) -> list[Example]:
    """Lessons as tokens; `suffix` ends every prompt (pause tokens). Raises `DataError` for what cannot be learned."""
    if not lessons:
        raise DataError("there are no lessons to learn from: the training split is empty")
    prompts = tokenizer([render(lesson.prompt, style) for lesson in lessons], add_special_tokens=False)["input_ids"]
    answers = tokenizer([lesson.completion for lesson in lessons], add_special_tokens=False)["input_ids"]
    examples = []
    for lesson, prompt, answer in zip(lessons, prompts, answers, strict=True):
        example = Example(lesson.problem, [*prompt, *suffix], [*answer, tokenizer.eos_token_id])
        length = len(example.prompt) + len(example.completion)
        if not answer:
            raise DataError(f"lesson {lesson.problem}: the completion has no token, so there is nothing to learn")
        if length > longest:
            raise DataError(
                f"lesson {lesson.problem}: {length} tokens, the model holds {longest}: "
                "raise base.scratch.positions, or leave such problems out"
            )
        examples.append(example)
    return examples


def grouped(lengths: Sequence[int], batch_size: int, seed: int) -> Callable[[int], list[int]]:
    """The rows of batch `i`: a pure function of (lengths, batch size, seed, i), rows of like length together.

    Every epoch visits each row at most once; what does not fill a batch waits for another epoch's shuffle.
    """
    size = min(batch_size, len(lengths))
    per_epoch = len(lengths) // size

    @functools.lru_cache(maxsize=2)
    def epoch(number: int) -> list[list[int]]:
        rng = random.Random(f"{seed} {number}")
        rows = rng.sample(range(len(lengths)), per_epoch * size)
        pools = [sorted(rows[i : i + 64 * size], key=lengths.__getitem__) for i in range(0, len(rows), 64 * size)]
        batches = [pool[i : i + size] for pool in pools for i in range(0, len(pool), size)]
        rng.shuffle(batches)
        return batches

    return lambda i: epoch(i // per_epoch)[i % per_epoch]


def sft_batches(
    examples: Sequence[Example], question_lengths: Sequence[int], pad: int, batch_size: int, seed: int
) -> Batches:
    """Right-padded batches grouped by *question* length, so that every arm sees the same problems in the same order.

    Padding stands on the right of a causal model, where no label and no real token can see it: no mask is needed.
    """
    rows_of = grouped(question_lengths, batch_size, seed)

    def batch(index: int) -> Batch:
        rows = [examples[i] for i in rows_of(index)]
        longest = max(len(row.prompt) + len(row.completion) for row in rows)
        first = max(1, min(len(row.prompt) for row in rows))  # the first position that can be predicted
        ids = torch.full((len(rows), longest), pad)
        labels = torch.full((len(rows), longest), IGNORED)
        for i, row in enumerate(rows):
            start, end = len(row.prompt), len(row.prompt) + len(row.completion)
            ids[i, :end] = torch.tensor(row.prompt + row.completion)
            labels[i, start:end] = torch.tensor(row.completion)
        labels = labels[:, first:]
        tensors = {"input_ids_BT": ids, "labels_BK": labels}
        return Batch(tensors, int((labels != IGNORED).sum()), tuple(row.problem for row in rows))

    return batch
