"""Toys: problems small enough to check by hand, random tiny models, a tokenizer, and stages that only echo."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from stillroom.records import Problem, Step
from stillroom.store import Stage, Workplace
from stillroom.students import Manner, Student
from stillroom.students.scratch import word_tokenizer

torch.set_num_threads(2)
PAD, END, WORDS = 0, 1, 40


def problem(name: str, *steps: tuple[str, int], question: str = "", skeleton: str = "") -> Problem:
    """A problem whose answer is the last step's value: `problem("a", ("2 + 3", 5), ("5 * 2", 10))`."""
    worked = tuple(Step(expression=expression, value=str(value)) for expression, value in steps)
    asked = question or f"What is {name}?"
    return Problem(task="toy", id=name, question=asked, answer=worked[-1].value, steps=worked, skeleton=skeleton)


def sums(count: int) -> list[Problem]:
    """`count` problems of two steps: i + 1, then 1 more."""
    return [
        problem(
            f"sum-{i}", (f"{i} + 1", i + 1), (f"{i + 1} + 1", i + 2), question=f"Ann has {i} eggs and gets 1 and 1."
        )
        for i in range(count)
    ]


def tokenizer(largest: int = 20) -> PreTrainedTokenizerFast:
    chain = "<reasoning>\nStep 1: 1 + 1 = 2\n</reasoning>\nThe answer is 2."
    return word_tokenizer([*(p.question + "\n" for p in sums(2)), chain], range(largest + 1))


def llama(vocabulary: int = WORDS, seed: int = 0, spread: float = 0.5, dropout: float = 0.0) -> PreTrainedModel:
    """Two random layers; `spread` is large so that different inputs give different outputs."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=spread, attention_dropout=dropout,
        pad_token_id=PAD, eos_token_id=END, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")
    return model.eval()


def gpt2(vocabulary: int = WORDS, seed: int = 0, spread: float = 0.5, dropout: float = 0.0) -> PreTrainedModel:
    """Two random layers with learned positions, where a wrong position id shows."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=spread,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        pad_token_id=PAD, eos_token_id=END, bos_token_id=END,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.set_attn_implementation("eager")
    return model.eval()


MODELS: dict[str, Callable[..., PreTrainedModel]] = {"llama": llama, "gpt2": gpt2}


def student(kind: str = "llama", pauses: int = 0, seed: int = 0) -> Student:
    words = tokenizer()
    return Student(MODELS[kind](len(words), seed), words, Manner(pauses=pauses))


def workplace(folder: Path, **settings: object) -> Workplace:
    folder.mkdir(parents=True, exist_ok=True)
    return Workplace(out=folder, name="toy", **settings)  # type: ignore[arg-type]


def echo(text: str) -> Callable[[Workplace], None]:
    """A stage's work that writes its text, and below it what its parents wrote."""

    def run(at: Workplace) -> None:
        heard = [(folder / "said.txt").read_text() for folder in at.parents.values()]
        (at.out / "said.txt").write_text("".join([text, *heard]))

    return run


def stage(text: str = "hello", version: int = 1, **parents: Stage) -> Stage:
    return Stage("echo", f"echo {text}", version, {"text": text}, parents, echo(text))
