"""Supervised fine-tuning: completion examples a second beside TRL's `SFTTrainer`, and the held-out loss of both.

    .venv/bin/python benchmarks/sft.py [--quick]    (--quick: 40 updates, no claim about the loss)

Two scratch Llamas from the same initial weights, on the same lessons in tokens, with the same batch, precision
(bfloat16 autocast), optimizer and schedule. TRL is first timed in each of its ways; then ours and its fastest train by
turns, and the better time of each counts, since what disturbs a machine only ever lengthens a time. The ceiling is an
update of nothing but its products with weights: no code around the same products can be quicker. Losses are compared
after the same updates, for which it is given our batches in our order. The wide model learns recorded SVAMP rationales
if STILLROOM_DATA (else `shared/data` beside the checkout) holds them, else abacus lessons too.
"""

import copy
import logging
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from figures import Figure, at_least, close, told_load
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from stillroom.curriculum import completion
from stillroom.records import Lesson, Problem, Rationale
from stillroom.store import Workplace
from stillroom.students.batches import IGNORED, Example, grouped, lesson_batches, padded
from stillroom.students.folders import Manner, Student
from stillroom.students.scratch import bpe_tokenizer, word_tokenizer
from stillroom.students.sft import SftObjective, encode
from stillroom.tasks import TASKS
from stillroom.teachers import TEACHERS
from stillroom.teachers.asking import Desk
from stillroom.training import FitConfig, fit

THREADS = 2
TRL_WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "group by length": {"train_sampling_strategy": "group_by_length"},
    "packing": {"packing": True},
}
ROUNDS = 2
LEARNED = 500
"""Updates from which losses say something."""
OUR_ORDER = {"train_sampling_strategy": "sequential"}
"""For the comparison of losses: the same rows in the same updates."""


class Case(NamedTuple):
    name: str
    width: int
    layers: int
    vocabulary: int
    batch: int
    trial: int
    """Updates by which TRL's ways are compared."""
    task: str
    teacher: dict[str, Any]


CASES = (
    Case("width 128", 128, 4, 128, 32, 15, "abacus", {"name": "worked"}),
    Case(
        "width 512",
        512,
        8,
        8000,
        8,
        10,
        "svamp",
        {"name": "recorded", "dataset": "svamp", "teacher": "gemini", "granularity": 1},
    ),
)


def lessons(case: Case) -> list[Lesson]:
    """The task's training problems with the teacher's rationales, as `normal` is shown them."""
    data = Path(os.environ.get("STILLROOM_DATA") or Path(__file__).parents[2] / "shared" / "data")
    told = case
    if case.task == "svamp" and not (data / "teacher_cot.jsonl").exists():
        print(f"  {data} has no teacher_cot.jsonl: abacus lessons in its place")
        told = case._replace(task="abacus", teacher={"name": "worked"})
    task, teacher = TASKS[told.task], TEACHERS[told.teacher["name"]]
    settings = {"name": told.task, **({"train": 6000, "narrated": 3} if told.task == "abacus" else {})}
    problems: list[Problem] = task.splits(task.config.parse(settings, "benchmark"), data)["train"]
    written: list[Rationale] = teacher.write(teacher.config.parse(told.teacher, "benchmark"), problems, data, Desk())
    rationales = {rationale.problem: rationale for rationale in written}
    rows = [(problem, rationales[problem.id]) for problem in problems if problem.id in rationales]
    return [Lesson(problem=p.id, prompt=p.question, completion=completion(p, r, "normal")) for p, r in rows]


def tokenizer(case: Case, rows: Sequence[Lesson]) -> PreTrainedTokenizerFast:
    texts = [f"{row.prompt}\n{row.completion}" for row in rows]
    return word_tokenizer(texts, range(0)) if case.vocabulary <= 1000 else bpe_tokenizer(texts, case.vocabulary)


def scratch(case: Case, attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=case.vocabulary, hidden_size=case.width, intermediate_size=case.width * 8 // 3 // 8 * 8,
            num_hidden_layers=case.layers, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024,
            tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )
    )  # fmt: skip
    model.set_attn_implementation(attention)
    return model


@torch.inference_mode()
def held_out_loss(model: LlamaForCausalLM, rows: Sequence[Example]) -> float:
    """Nats a label, in float32."""
    model.eval()
    total, count = 0.0, 0
    for i in range(0, len(rows), 32):
        tensors = padded(rows[i : i + 32], 0)
        loss = SftObjective(model)(**tensors)["ce"]
        labels = int((tensors["labels_BK"] != IGNORED).sum())
        total, count = total + float(loss) * labels, count + labels
    return total / count


def ours(case: Case, attention: str, rows: Sequence[Example], updates: int) -> tuple[LlamaForCausalLM, float]:
    """The trained model, and seconds."""
    model = scratch(case, attention)
    config = FitConfig(updates=updates, batch_size=case.batch, learning_rate=1e-3, warmup=20, threads=THREADS)
    lengths = [len(row.prompt) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(out=Path(folder), name=case.name, checkpoint_seconds=1e9)
        began = time.monotonic()
        fit(SftObjective(model), lesson_batches(rows, lengths, 0, case.batch, 0), config, place)
        return model, time.monotonic() - began


class Clock(TrainerCallback):
    """Seconds of training alone, without TRL's preparation of the data."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.monotonic()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.monotonic() - self.began


def trl(
    case: Case,
    attention: str,
    way: dict[str, Any],
    rows: Sequence[Example],
    updates: int,
    words: PreTrainedTokenizerFast,
) -> tuple[LlamaForCausalLM, float, float]:
    """The trained model, seconds, and examples an update."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = scratch(case, attention)
    longest = max(row.length for row in rows)
    table = Dataset.from_list(
        [
            {
                "input_ids": row.prompt + row.completion,
                "completion_mask": [0] * len(row.prompt) + [1] * len(row.completion),
            }
            for row in rows
        ]
    )
    per_row = 1.0
    settings = {**way, "max_length": longest}
    batch = case.batch
    if way.get("packing"):  # as many tokens an update as the others have examples
        settings["max_length"] = 512
        mean = sum(row.length for row in rows) / len(rows)
        per_row = 512 / mean
        batch = max(1, round(case.batch / per_row))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = SFTConfig(
            output_dir=folder, max_steps=updates, per_device_train_batch_size=batch, learning_rate=1e-3,
            lr_scheduler_type="cosine", warmup_steps=20, weight_decay=0.0, max_grad_norm=1.0, bf16=True, use_cpu=True,
            gradient_checkpointing=False, completion_only_loss=True, optim="adamw_torch_fused", logging_steps=50,
            report_to="none", save_strategy="no", disable_tqdm=True, dataset_num_proc=None, seed=0,
            dataloader_pin_memory=False, **settings,
        )  # fmt: skip
        clock = Clock()
        trainer = SFTTrainer(
            model, args=config, train_dataset=table, processing_class=copy.deepcopy(words), callbacks=[clock]
        )
        torch.set_num_threads(THREADS)
        trainer.train()
    return model, clock.seconds, batch * per_row


def ceiling(case: Case, rows: Sequence[Example]) -> float:
    """Examples a second if an update were its products with weights and their two gradients in bfloat16: for a mean
    batch, the output head for labels alone. Attention and whatever is no product take no time."""
    drawn = rows[: 8 * case.batch]
    read, labels = sum(row.length for row in drawn) // 8, sum(len(row.completion) for row in drawn) // 8
    inner = scratch(case, "eager").config.intermediate_size
    layer = [(read, case.width, case.width)] * 4 + [(read, case.width, inner)] * 3
    held = [
        [torch.randn(shape, dtype=torch.bfloat16) for shape in ((count, inputs), (outputs, inputs), (count, outputs))]
        for count, inputs, outputs in [*layer * case.layers, (labels, case.width, case.vocabulary)]
    ]
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        for x, weight, gradient in held:
            torch.mm(x, weight.T)
            torch.mm(gradient, weight)
            torch.mm(gradient.T, x)
        seconds.append(time.perf_counter() - began)
    return case.batch / min(seconds)


def measure(case: Case, updates: int) -> Figure:
    told = lessons(case)
    words = tokenizer(case, told)
    assert len(words) <= case.vocabulary, len(words)
    examples = encode(told, Student(scratch(case, "eager"), words, Manner()))
    random.Random(0).shuffle(examples)
    held, rows = examples[: len(examples) // 10], examples[len(examples) // 10 :]
    mean = sum(row.length for row in rows) / len(rows)
    print(f"{case.name}: {len(rows)} lessons of {mean:.0f} tokens, {len(words)} words, batch {case.batch}")
    quickest = {}
    for attention in ("eager", "sdpa"):
        _, seconds = ours(case, attention, rows, case.trial)
        quickest["ours", attention] = case.trial * case.batch / seconds
        for name, way in TRL_WAYS.items():
            _, seconds, each = trl(case, attention, way, rows, case.trial, words)
            quickest[name, attention] = case.trial * each / seconds
    for (name, attention), rate in quickest.items():
        print(f"  trial of {case.trial} updates: {name:16}{attention:6}{rate:8.1f} examples/s")
    _, attention = max((rate, attention) for (name, attention), rate in quickest.items() if name == "ours")
    _, name, theirs = max((rate, name, att) for (name, att), rate in quickest.items() if name != "ours")
    taken: list[float] = []
    peer_taken: list[float] = []
    for _ in range(ROUNDS):
        model, took = ours(case, attention, rows, updates)
        taken.append(took)
        _, took, each = trl(case, theirs, TRL_WAYS[name], rows, updates, words)
        peer_taken.append(took)
    result: dict[str, Any] = {
        "case": case.name, "updates": updates, "ours": updates * case.batch / min(taken), "attention": attention,
        "trl": updates * each / min(peer_taken), "trl way": name, "trl attention": theirs,
        "ceiling": ceiling(case, rows),
    }  # fmt: skip
    print(
        f"  {updates} updates: ours {result['ours']:.1f} ({attention}), TRL {result['trl']:.1f} ({name}, {theirs}) "
        "examples/s"
    )
    ours_share, trl_share = (100 * result[side] / result["ceiling"] for side in ("ours", "trl"))
    print(f"  of the ceiling of {result['ceiling']:.1f}: ours {ours_share:.0f} %, TRL {trl_share:.0f} %")
    if updates >= LEARNED:
        rows_of = grouped([len(row.prompt) for row in rows], case.batch, 0)
        ordered = [rows[i] for update in range(updates) for i in rows_of(update)]
        peer, _, _ = trl(case, attention, OUR_ORDER, ordered, updates, words)
        result |= {"held-out loss": held_out_loss(model, held), "trl held-out loss": held_out_loss(peer, held)}
        print(f"  held-out loss {result['held-out loss']:.4f}, TRL {result['trl held-out loss']:.4f}")
    return at_least(f"{case.name}: ours / TRL", result["ours"] / result["trl"], "x", 1.5, **result)


def main() -> None:
    torch.set_num_threads(THREADS)
    logging.disable(logging.WARNING)
    updates = 40 if "--quick" in sys.argv else LEARNED
    load = told_load()
    found = [measure(case, updates) for case in CASES if not os.environ.get("CASE") or case.name == os.environ["CASE"]]
    close("sft", found, load, "trl", "transformers", "torch", threads=THREADS)


if __name__ == "__main__":
    main()
