"""Lessons in tokens, and the batches that they make.

Legend: B rows, T tokens, K positions whose next token may be a label.
"""

import functools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from stillroom.errors import UsageError
from stillroom.training import Batch, Batches

IGNORED = -100
CE = "ce"
STEP = 8
"""Padded lengths are multiples of it where texts vary: every shape that a process meets costs it memory for good."""


@dataclass(frozen=True)
class Example:
    """One lesson in tokens: the loss touches `completion`, whose last token ends the text."""

    problem: str
    prompt: list[int]
    completion: list[int]
    term: str = CE
    """The term of the loss that the lesson belongs to."""

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.completion)

    @property
    def labels(self) -> int:
        """Nothing stands before the first token of a text without a prompt, so it cannot be predicted."""
        return len(self.completion) - (not self.prompt)


def grouped(lengths: Sequence[int], batch_size: int, seed: int) -> Callable[[int], list[int]]:
    """The rows of update `i`: a pure function of (lengths, batch size, seed, i), rows of like length together.

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


def share(rows: Sequence[int], part: int, parts: int) -> Sequence[int]:
    """The rows of one part of an update. Raises `UsageError` where there are more parts than rows."""
    if parts > len(rows):
        raise UsageError(f"an update of {len(rows)} rows cannot be shared out in {parts} parts: use fewer processes")
    return rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]


def lesson_batches(
    examples: Sequence[Example],
    question_lengths: Sequence[int],
    pad: int,
    batch_size: int,
    seed: int,
    packing: bool = False,
) -> Batches:
    """Batches grouped by *question* length, so that every arm sees the same problems in the same order.

    The parts of an update are runs of its rows, which are sorted by length.
    """
    rows_of = grouped(question_lengths, batch_size, seed)
    terms = sorted({example.term for example in examples})

    def batch(update: int, part: int, parts: int) -> Batch:
        rows = [examples[i] for i in share(rows_of(update), part, parts)]
        tensors = packed(rows) if packing else padded(rows, pad)
        if len(terms) > 1:
            tensors["term_B"] = torch.tensor([terms.index(row.term) for row in rows])
        counted: Counter[str] = Counter()
        for row in rows:
            counted[row.term] += row.labels
        return Batch(tensors, {term: counted[term] for term in terms}, tuple(row.problem for row in rows))

    return batch


def padded(rows: Sequence[Example], pad: int) -> dict[str, Tensor]:
    """Rows side by side: `input_ids_BT`, and `labels_BK` for the last K positions.

    Padding stands on the right of a causal model, where no label and no real token can see it: no mask is needed.
    """
    ids_BT = right_padded([row.prompt + row.completion for row in rows], pad)
    labels_BT = right_padded([[IGNORED] * len(row.prompt) + row.completion for row in rows], IGNORED)
    length = ids_BT.shape[1]
    first = max(1, min(len(row.prompt) for row in rows))  # the first position that can be predicted
    first = max(1, length - stepped(length - first))
    return {"input_ids_BT": ids_BT, "labels_BK": labels_BT[:, first:], "keep_K": torch.arange(first - 1, length - 1)}


def right_padded(rows: Sequence[Sequence[int]], fill: int, step: int = STEP) -> Tensor:
    """Rows side by side, as long as the longest and up to a multiple of `step`."""
    texts = [torch.tensor(row, dtype=torch.long) for row in rows]
    ids_BT = nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=fill)
    return functional.pad(ids_BT, (0, stepped(ids_BT.shape[1], step) - ids_BT.shape[1]), value=fill)


def stepped(length: int, step: int = STEP) -> int:
    """The next multiple."""
    return -(-length // step) * step


def longest_lesson(context: int) -> int:
    """Tokens of the longest text whose padding a model of this context still has positions for."""
    return context // STEP * STEP


def packed(rows: Sequence[Example]) -> dict[str, Tensor]:
    """Rows end to end in one row of B = 1, each with positions from 0, by which the attention keeps them apart."""
    ids = [token for row in rows for token in [*row.prompt, *row.completion]]
    positions = [i for row in rows for i in range(row.length)]
    starts = [sum(row.length for row in rows[:i]) for i in range(len(rows))]
    labelled = [
        at
        for row, start in zip(rows, starts, strict=True)
        for at in range(start + row.length - row.labels, start + row.length)
    ]
    keep_K = torch.tensor(labelled, dtype=torch.long) - 1
    ids_1T = torch.tensor([ids])
    return {
        "input_ids_BT": ids_1T,
        "labels_BK": ids_1T[:, keep_K + 1],
        "keep_K": keep_K,
        "position_ids_BT": torch.tensor([positions]),
    }


@torch.inference_mode()
def keeps_apart(model: PreTrainedModel) -> bool:
    """Whether rows that stand end to end do not see each other: tried on the model itself, not read off its name."""
    words = min(7, int(model.config.get_text_config().vocab_size) - 1)
    rows = [Example("", [], [(3 * i + j) % words + 1 for j in range(4 + i)]) for i in range(3)]
    device = model.device
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    together = packed(rows)
    out = model(
        input_ids=together["input_ids_BT"].to(device),
        position_ids=together["position_ids_BT"].to(device),
        use_cache=False,
    )
    alone = torch.cat(
        [model(input_ids=torch.tensor([row.completion], device=device), use_cache=False).logits[0] for row in rows]
    )
    model.train(training)
    return bool(torch.allclose(out.logits[0].float(), alone.float(), rtol=1e-2, atol=1e-2 * float(alone.float().std())))
