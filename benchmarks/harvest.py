"""The microscope's price: capturing the residual stream of all layers over the plain forward pass, and streaming
harvested vectors to disk and back in bounded memory.

    .venv/bin/python benchmarks/harvest.py [--quick] [--device cuda]      (--quick: 1 M vectors, fewer passes)

Both sides of the first: one untrained Llama in float32, the same batch, in turn; the median of the pairs' ratios. The
vectors of the second are of width 128 in float32; memory is what the process grows by.
The last line printed is JSON; the exit code is 0 when every figure holds its bar.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from figures import at_least, at_most, close, told_load
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from stillroom.activations import residual_stream
from stillroom.harvest import read_shards, write_shards

WIDTH, PART = 128, 8192


def capture_cost(device: str, repeats: int) -> float:
    """Per cent that a captured forward pass takes more than a plain one."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=688, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(device).eval()  # type: ignore[arg-type]
    ids = torch.randint(0, 512, (32, 64), device=device)

    def seconds(captured: bool) -> float:
        began = time.perf_counter()
        if captured:
            with residual_stream(model) as stream:
                model(input_ids=ids, use_cache=False)
            assert len(stream) == 9
        else:
            model(input_ids=ids, use_cache=False)
        if device != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - began

    with torch.inference_mode():
        for captured in (False, True):
            seconds(captured)  # the first pass of a process is slow
        ratios = [a / b for a, b in (_pair(seconds, i % 2 == 0) for i in range(repeats))]
    return 100 * (statistics.median(ratios) - 1)


def _pair(seconds: object, first: bool) -> tuple[float, float]:
    """Captured and plain seconds, taken in turn with the order reversed every other time."""
    assert callable(seconds)
    if first:
        captured = seconds(True)
        return captured, seconds(False)
    plain = seconds(False)
    return seconds(True), plain


def vectors(count: int) -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(0)
    for start in range(0, count, PART):
        yield torch.randn((min(PART, count - start), WIDTH), generator=draw)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    load = told_load()
    count = 1_000_000 if asked.quick else 10_000_000
    before = peak()
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        written = write_shards(Path(scratch) / "vectors", vectors(count))
        middle = time.perf_counter()
        same = all(
            bool((mine == again).all())
            for mine, again in zip(vectors(count), read_shards(Path(scratch) / "vectors", PART), strict=True)
        )
        ended = time.perf_counter()
    grown = peak() - before
    print(f"{written:,} vectors written in {middle - began:.1f} s, read and compared in {ended - middle:.1f} s")
    cost = capture_cost(asked.device, 11 if asked.quick else 41)
    figures = [
        at_most("capture over plain", cost, "%", 15),
        at_most("memory of streaming", grown, "MiB", 1024),
        at_least("vectors that came back", 100.0 * same, "%", 100),
    ]
    circumstances = {"threads": asked.threads, "device": asked.device, "vectors": count}
    close("harvest", figures, load, "torch", "transformers", "safetensors", **circumstances)


if __name__ == "__main__":
    main()
