"""What a trace on disk costs beside the engine alone: statistics, words, log-probabilities, files and questions.

    .venv/bin/python benchmarks/traces.py [--quick] [--width 128] [--device cuda]    (--quick: 64 questions, not 256)

Both sides trace the same questions with the same untrained Llama (bfloat16 weights, six thoughts, eight answer tokens,
the sizes of `benchmarks/thoughts.py`), in turn; the figure is the ratio of their shortest times, since whatever else
the machine does only lengthens them.
The last line printed is JSON; the exit code is 0 when every figure holds its bar.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import torch
from figures import at_most, close, told_load
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from stillroom.evaluation.thinking import strangers
from stillroom.oracle import questions, tables
from stillroom.oracle.traces import TraceConfig, collect
from stillroom.records import Problem
from stillroom.students import Manner, Student
from stillroom.students.folders import BEGIN, END, Thoughts
from stillroom.students.scratch import word_tokenizer
from stillroom.students.thoughts import trace

THOUGHTS, TOKENS, BAR = 6, 8, 1.15
SIZES = {128: (4, 4, 128), 512: (8, 8, 8000)}
"""Width: layers, heads, vocabulary."""


def student(width: int, device: str) -> Student:
    layers, heads, vocabulary = SIZES[width]
    torch.manual_seed(0)
    tokenizer = word_tokenizer([f" w{i}" for i in range(vocabulary - 7)], ())
    tokenizer.add_special_tokens({"additional_special_tokens": [BEGIN, END]})
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=8 * width // 3 // 32 * 32, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, initializer_range=0.05,
    )  # fmt: skip
    projection = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
    model = LlamaForCausalLM(config).to(device, torch.bfloat16).eval()  # type: ignore[arg-type]
    manner = Manner(style="bare", thoughts=Thoughts(count=THOUGHTS))
    return Student(model, tokenizer, manner, projection.to(device, torch.bfloat16).eval())


def problems(count: int, vocabulary: int) -> list[Problem]:
    draw = random.Random(0)
    texts = ["".join(f" w{draw.randrange(vocabulary - 7)}" for _ in range(draw.randint(40, 100))) for _ in range(count)]
    return [Problem(task="bench", id=str(row), question=text, answer=str(row)) for row, text in enumerate(texts)]


def ratio(width: int, count: int, device: str, rounds: int) -> tuple[float, float]:
    """Our time over the engine's, and the engine's milliseconds a question."""
    who, asked = student(width, device), problems(count, SIZES[width][2])
    prompts, partners = who.prompts([problem.question for problem in asked]), strangers(asked)
    config = TraceConfig(new_tokens=TOKENS, part=count)
    trace(who.thinker(), prompts[:8], THOUGHTS, TOKENS, [*range(1, 8), 0])
    alone, whole = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        trace(who.thinker(), prompts, THOUGHTS, TOKENS, partners)
        alone.append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            collect(who, asked, config, Path(folder), "test", Path(folder) / "parts")
            rows = questions.seen(tables.read(Path(folder), "test").rows)
            list(questions.ask(rows, list(questions.STRATEGIES), 0))
            whole.append(time.perf_counter() - began)
    return min(whole) / min(alone), 1000 * min(alone) / count


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
        value, alone = ratio(width, 64 if asked.quick else 256, asked.device, 5)
        print(f"width {width}: {value:.3f} x the engine alone, which takes {alone:.2f} ms a question")
        figures.append(at_most(f"traces at width {width}", value, "x", BAR))
    close("traces", figures, load, "torch", "transformers", threads=asked.threads, device=asked.device)


if __name__ == "__main__":
    main()
