"""Latent students: think-and-answer and a full trace in batches, against a plain loop that decodes one at a time.

    .venv/bin/python benchmarks/thoughts.py [--quick] [--width 128] [--device cuda]    (--quick: 64 questions at 512)

Both sides: untrained Llamas with bfloat16 weights, the same threads, six thoughts, eight answer tokens, none of which
ends an answer. The plain loop is timed on a sample (16 questions; each variant of the trace on one), in turn with ours;
both are given in milliseconds a question. In float32 both sides' answers are compared.
The last line printed is JSON; the exit code is 0 when every figure holds its bar.
"""

import argparse
import random
import resource
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from figures import at_least, close, told_load
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from stillroom.students.thoughts import Thinker, Variant, think_and_answer, trace, trace_variants
from stillroom.students.thoughts.interventions import Undisturbed, replaced

THOUGHTS, TOKENS, BOT, EOT, SAMPLE = 6, 8, 1, 2, 16
SIZES = {128: (4, 4, 128, 15, 45), 512: (8, 8, 8000, 6, 18)}
"""Width: layers, heads, vocabulary, the bar of think-and-answer and that of the trace."""
QUESTIONS = 256
QUICK = {512: 64}
"""At width 128 the ratio is that of a large batch."""


def thinker(width: int, device: str, dtype: torch.dtype) -> Thinker:
    layers, heads, vocabulary, *_ = SIZES[width]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=8 * width // 3 // 32 * 32,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads, initializer_range=0.05,
    )  # fmt: skip
    projection = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
    model = LlamaForCausalLM(config).to(device, dtype).eval()  # type: ignore[arg-type]
    return Thinker(model, projection.to(device, dtype).eval(), (BOT,), (EOT,), 0, ())


def questions(count: int, vocabulary: int) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(3, vocabulary) for _ in range(draw.randint(40, 100))] for _ in range(count)]


@torch.inference_mode()
def plain(who: Thinker, prompts: Sequence[Sequence[int]], row: int, variant: Variant, alone: Undisturbed) -> list[int]:
    """One question, one variant: the body alone for thoughts, a growing cache, the head only where a token is read."""
    device = who.model.device
    cache = DynamicCache(config=who.model.config)

    def read(inputs_1Td: Tensor) -> Tensor:
        body = who.model.base_model(inputs_embeds=inputs_1Td, past_key_values=cache, use_cache=True)
        last_11d: Tensor = body.last_hidden_state[:, -1:]
        return last_11d

    begin = who.begin if variant.thoughts is not None else ()
    last_11d = read(who.embed(torch.tensor([[*prompts[row], *begin]], device=device)))
    for step in range(variant.thoughts or 0):
        thought_11d = who.project(last_11d)
        for intervention in variant.interventions:
            if intervention.step == step:
                thought_11d = replaced(intervention, thought_11d[0], [row], alone)[None]
        last_11d = read(thought_11d)
    if variant.thoughts is not None:
        last_11d = read(who.embed(torch.tensor([list(who.end_of_thoughts)], device=device)))
    ids = [int(who.head(last_11d).argmax())]
    while len(ids) < TOKENS:
        last_11d = read(who.embed(torch.tensor([[ids[-1]]], device=device)))
        ids.append(int(who.head(last_11d).argmax()))
    return ids


def seconds(work: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began


def measure(width: int, count: int, device: str, repeats: int) -> dict[str, float]:
    """Milliseconds a question of both sides: medians of several runs, ours and the plain loop's in turn."""
    who = thinker(width, device, torch.bfloat16)
    prompts = questions(count, SIZES[width][2])
    partners = [*range(1, count), 0]
    variants = trace_variants(THOUGHTS, partners)
    alone = undisturbed(who, prompts)
    draw = random.Random(1)
    ms: dict[str, list[float]] = {"think": [], "trace": [], "plain think": [], "plain trace": []}
    for _ in range(repeats):
        sample = draw.sample(range(count), SAMPLE)
        pairs = [(draw.randrange(count), variant) for variant in variants.values()]  # a question drawn for each
        works: dict[str, tuple[int, Callable[[], object]]] = {
            "think": (count, lambda: think_and_answer(who, prompts, THOUGHTS, TOKENS)),
            "plain think": (SAMPLE, lambda s=sample: [plain(who, prompts, r, Variant(THOUGHTS), alone) for r in s]),  # type: ignore[misc]
            "trace": (count, lambda: trace(who, prompts, THOUGHTS, TOKENS, partners)),
            "plain trace": (1, lambda p=pairs: [plain(who, prompts, row, v, alone) for row, v in p]),  # type: ignore[misc]
        }
        for name, (asked, work) in works.items():
            ms[name].append(1000 * seconds(work, device) / asked)
    return {name: statistics.median(values) for name, values in ms.items()}


def equal(width: int, device: str) -> float:
    """Per cent of the plain loop's answers that a trace equals in float32: each variant on one of eight questions."""
    who = thinker(width, device, torch.float32)
    prompts = questions(8, SIZES[width][2])
    partners = [*range(1, 8), 0]
    traced, alone = trace(who, prompts, THOUGHTS, TOKENS, partners), undisturbed(who, prompts)
    same = [
        traced[i % 8][name].completion.ids == plain(who, prompts, i % 8, variant, alone)
        for i, (name, variant) in enumerate(trace_variants(THOUGHTS, partners).items())
    ]
    return 100 * sum(same) / len(same)


def undisturbed(who: Thinker, prompts: list[list[int]]) -> Undisturbed:
    answers = think_and_answer(who, prompts, THOUGHTS, TOKENS)
    return Undisturbed(prompts, torch.stack([answer.thoughts_Kd for answer in answers]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--width", type=int, choices=SIZES, action="append", help="one size alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    load = told_load()
    figures = []
    for width in asked.width or SIZES:
        *_, think_bar, trace_bar = SIZES[width]
        count = QUICK.get(width, QUESTIONS) if asked.quick else QUESTIONS
        ms = measure(width, count, asked.device, 3)
        for name, bar in (("think", think_bar), ("trace", trace_bar)):
            ours, theirs = ms[name], ms[f"plain {name}"]
            print(f"width {width}: {name} {ours:.2f} ms a question, one at a time {theirs:.1f} ms")
            figures.append(at_least(f"{name} at width {width}", theirs / ours, "x", bar))
        figures.append(at_least(f"equal at width {width}", equal(width, asked.device), "%", 100))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if asked.device != "cpu":
        print(f"peak memory of the device {torch.accelerator.max_memory_allocated() / 2**20:.0f} MiB")
    told = {"threads": asked.threads, "device": asked.device, "quick": asked.quick}
    close("thoughts", figures, load, "torch", "transformers", **told)


if __name__ == "__main__":
    main()
