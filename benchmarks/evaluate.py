"""Evaluation: tokens a second beside plain `model.generate` over batches in file order, and what bookkeeping costs.

    .venv/bin/python benchmarks/evaluate.py [--quick] [--device cuda]    (--quick: 96 questions, not 512)

Both sides: the same untrained Llama in float32, the same questions of mixed lengths, the same batch size and limit.
Answers end at one of several tokens, so that their lengths are mixed too. Plain is `model.generate` over left-padded
batches in the order of the file. Ours is all that `stillroom evaluate` does to a student: prompts, decoding,
predictions appended to disk batch by batch, grading and scores; what is no decoding is its share of the wall time. The
runs are interleaved, each figure is a median, and all answers are compared.
The last line printed is JSON; the exit code is 0 when every figure holds its bar.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from figures import at_least, at_most, close, told_load
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from stillroom import decoding
from stillroom.evaluation.answering import AnswerConfig, ask
from stillroom.evaluation.local import local
from stillroom.evaluation.scoring import groups, judge, scored
from stillroom.records import Problem
from stillroom.students import Manner, Student
from stillroom.students.scratch import word_tokenizer

WORDS, NEW_TOKENS, BATCH, ENDS = 2000, 96, 32, 40
SPEED_BAR, SHARE_BAR = 1.5, 3.0


@dataclass(frozen=True)
class Talker(Student):
    """A student whose answers end at any of many tokens: an untrained one would seldom say the one."""

    ends: tuple[int, ...] = ()

    @property
    def stops(self) -> tuple[int, ...]:
        return self.ends


@dataclass
class Clock:
    """Seconds spent in decoding."""

    spent: float = 0.0


def talker(device: str) -> Talker:
    words = word_tokenizer([" ".join(f"w{i}" for i in range(WORDS))], range(100))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=8, initializer_range=0.1, pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(device).eval()  # type: ignore[arg-type]
    return Talker(model, words, Manner(attention="sdpa"), ends=(words.eos_token_id, *range(200, 200 + ENDS)))


def questions(count: int) -> list[Problem]:
    draw = random.Random(0)
    texts = [" ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(15, 150))) for _ in range(count)]
    return [Problem(task="toy", id=f"q{i}", question=text, answer="7") for i, text in enumerate(texts)]


@torch.inference_mode()
def plain(who: Talker, problems: Sequence[Problem]) -> Iterator[str]:
    """The loop that a script would hold."""
    pad, model = int(who.tokenizer.pad_token_id), who.model
    settings = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=pad, eos_token_id=list(who.stops)
    )
    for start in range(0, len(problems), BATCH):
        prompts = who.prompts([p.question for p in problems[start : start + BATCH]])
        longest = max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=model.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        for row in model.generate(input_ids=ids, attention_mask=mask, generation_config=settings).tolist():  # type: ignore[operator]
            said = row[longest:]
            end = next((i for i, token in enumerate(said) if token in who.stops), None)
            yield who.tokenizer.decode(said[:end], skip_special_tokens=True)


def ours(who: Talker, problems: Sequence[Problem], folder: Path) -> tuple[list[str], int]:
    config = AnswerConfig(new_tokens=NEW_TOKENS, batch_size=BATCH)
    journal = folder / "predictions.jsonl"
    journal.unlink(missing_ok=True)
    journal.with_suffix(".clock").unlink(missing_ok=True)
    found = ask(local(who, config), problems, [p.question for p in problems], 1, journal, "ours").predictions
    list(scored(("toy", 0), "test", groups(problems), judge(problems, found)))
    return [p.text for p in found], sum(p.tokens for p in found)


def timed(clock: Clock) -> None:
    """Have the decoder tell how long it takes."""
    decode = decoding.decode

    def watched(model: PreTrainedModel, *more: object) -> list[decoding.Completion]:
        began = time.perf_counter()
        done = decode(model, *more)  # type: ignore[arg-type]
        clock.spent += time.perf_counter() - began
        return done

    decoding.decode = watched  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    load = told_load()
    who, problems, clock = talker(asked.device), questions(96 if asked.quick else 512), Clock()
    timed(clock)
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    shares, same, tokens = [], 0, 0
    list(plain(who, problems[:BATCH]))  # warm up
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 if asked.quick else 3):
            began = time.perf_counter()
            theirs = list(plain(who, problems))
            times["plain"].append(time.perf_counter() - began)
            clock.spent, began = 0.0, time.perf_counter()
            texts, tokens = ours(who, problems, Path(folder))
            times["ours"].append(time.perf_counter() - began)
            shares.append(100 * (times["ours"][-1] - clock.spent) / times["ours"][-1])
            same = sum(a == b for a, b in zip(texts, theirs, strict=True))
    speed = {name: tokens / statistics.median(seconds) for name, seconds in times.items()}
    print(f"{len(problems)} questions, {tokens} tokens; a second: ours {speed['ours']:.0f}, plain {speed['plain']:.0f}")
    ratio, share, equal = speed["ours"] / speed["plain"], statistics.median(shares), 100 * same / len(problems)
    figures = [
        at_least("tokens a second", ratio, "x", SPEED_BAR),
        at_least("same answers", equal, "%", 100),
        at_most("grading and bookkeeping", share, "%", SHARE_BAR),
    ]
    told = {"threads": asked.threads, "device": asked.device, "questions": len(problems)}
    close("evaluate", figures, load, "torch", "transformers", **told)


if __name__ == "__main__":
    main()
