"""On an accelerator, at the shape of Llama-3.2-1B with random weights: training, thinking, a crosscoder and a harvest.

    .venv/bin/python benchmarks/gpu.py [--tiny]      (--tiny: a small shape on any device, to see that all of it runs)

Training is the whole step (forward, backward, clipping, fused AdamW) under bfloat16 autocast on float32 weights. Its
model FLOP utilisation counts six operations a parameter of the blocks and a token that is read, and a weight of the
head and a label; attention's products, padding and what is computed twice are left out. The ceiling is the rate of a
bfloat16 matrix product on the same device. Without an accelerator nothing is measured. No figure has a bar.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import codi_step
import crosscoder
import torch
from codi_step import BOT, EOT, PAD, Case
from figures import Figure, at_least, close, told_load
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from stillroom.activations import residual_stream
from stillroom.crosscoder.model import CrosscoderConfig, initial
from stillroom.harvest import write_shards
from stillroom.students.batches import padded
from stillroom.students.codi import CodiConfig, CodiObjective, codi_batches, in_words, projection
from stillroom.students.sft import SftObjective
from stillroom.students.thoughts import Thinker, think_and_answer

LLAMA = {
    "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "rope_theta": 500_000.0,
}  # fmt: skip
TINY = {**LLAMA, "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 2}
THOUGHTS, TOKENS, ALONE, WARM, TIMED = 6, 16, 8, 2, 10
LATENTS_K, LAYER = 100, 1


def llama(shape: dict[str, Any], device: str, dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True, pad_token_id=PAD, bos_token_id=None))
    model.set_attn_implementation("sdpa")
    return model.to(device, dtype)  # type: ignore[arg-type]


def seconds(work: Callable[[], object], device: str, times: int) -> float:
    """Of one call, the mean of several behind one that warms up."""
    work()
    began = 0.0
    for i in range(times + 1):
        if device != "cpu":
            torch.accelerator.synchronize()
        began = began if i else time.perf_counter()
        if i < times:
            work()
    return (time.perf_counter() - began) / times


def utilisation(
    name: str, objective: nn.Module, tensors: dict[str, Tensor], tokens: int, labels: int, device: str, ceiling: float
) -> list[Figure]:
    """Tokens a second in training, and their share of the ceiling."""
    model: LlamaForCausalLM = objective.model  # type: ignore[assignment]
    held = {key: tensor.to(device) for key, tensor in tensors.items()}
    optimizer = torch.optim.AdamW(objective.to(device).parameters(), lr=1e-5, fused=True)

    def update() -> None:
        with torch.autocast(device, torch.bfloat16):
            terms = objective(**held)
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    taken = seconds(update, device, TIMED)
    head = model.config.vocab_size * model.config.hidden_size
    operations = 6 * ((model.num_parameters() - head) * tokens + head * labels)
    share = 100 * operations / taken / ceiling
    return [
        at_least(f"{name}: tokens", tokens / taken, "/s", 0),
        at_least(f"{name}: model FLOP utilisation", share, "%", 0, milliseconds=round(1000 * taken, 1)),
    ]


def training(shape: dict[str, Any], rows: int, device: str, ceiling: float) -> list[Figure]:
    """The same problems in words, and as CODI's teacher and student see them."""
    config = CodiConfig(thoughts=THOUGHTS)
    chains = codi_step.chains(Case(shape["hidden_size"], 0, 0, shape["vocab_size"], rows, 0))
    texts = [in_words(chain, config) for chain in chains]
    read, labels = sum(text.length for text in texts), sum(text.labels for text in texts)
    student = sum(THOUGHTS + 2 + len(chain.answer) for chain in chains)
    answers = sum(len(chain.answer) for chain in chains)
    model = llama(shape, device, torch.float32)
    figures = utilisation("SFT", SftObjective(model), padded(texts, PAD), read, labels, device, ceiling)
    thinks = CodiObjective(model, projection(config, shape["hidden_size"], 0), config)
    lengths = [len(chain.prompt) for chain in chains]
    batch = codi_batches(chains, lengths, config, (BOT,), (EOT,), PAD, rows, 0)(0, 0, 1)
    return figures + utilisation("CODI", thinks, batch.tensors, read + student, labels + answers, device, ceiling)


def thinking(shape: dict[str, Any], count: int, device: str) -> list[Figure]:
    """Questions a second, all at once and one at a time, with thoughts and without."""
    width = shape["hidden_size"]
    made = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
    model = llama(shape, device, torch.bfloat16).eval()
    who = Thinker(model, made.to(device, torch.bfloat16).eval(), (BOT,), (EOT,), PAD, ())
    prompts = [chain.prompt for chain in codi_step.chains(Case(width, 0, 0, shape["vocab_size"], count, 0))]

    def one_by_one(thoughts: int) -> None:
        for prompt in prompts[:ALONE]:
            think_and_answer(who, [prompt], thoughts, TOKENS)

    figures = []
    for thoughts in (THOUGHTS, 0):
        taken = seconds(lambda n=thoughts: think_and_answer(who, prompts, n, TOKENS), device, WARM)  # type: ignore[misc]
        alone = seconds(lambda n=thoughts: one_by_one(n), device, WARM)  # type: ignore[misc]
        figures.append(at_least(f"{thoughts} thoughts, {count} at once: questions", count / taken, "/s", 0))
        figures.append(at_least(f"{thoughts} thoughts, one at a time: questions", ALONE / alone, "/s", 0))
    return figures


def fitting(width: int, device: str) -> list[Figure]:
    """Steps of a crosscoder of two models, sixteen latents a coordinate."""
    start = initial(CrosscoderConfig(k=LATENTS_K, expansion=16, decoder_norm=0.3), crosscoder.MODELS, width, 0)
    side = crosscoder.Side(crosscoder.Ours(start, LATENTS_K), "bfloat16", device)
    source = next(crosscoder.batches(width, device))
    taken = seconds(lambda: side.step(source), device, TIMED)
    share = 100 * crosscoder.operations(width) / taken / crosscoder.product_rate(width, device)
    told = f"crosscoder {width} -> {16 * width}, k {LATENTS_K}"
    return [
        at_least(f"{told}: steps", 1 / taken, "/s", 0),
        at_least(f"{told}: the plain step's products", share, "% of rate", 0),
    ]


@torch.inference_mode()
def harvesting(shape: dict[str, Any], rows: int, device: str) -> list[Figure]:
    """Tokens of one layer's residual stream, from the model to the disk."""
    model = llama(shape, device, torch.bfloat16).eval()
    ids_BT = torch.randint(0, shape["vocab_size"], (rows, 256), device=device)

    def vectors() -> Iterator[Tensor]:
        for _ in range(TIMED):
            with residual_stream(model) as stream:
                model(input_ids=ids_BT, use_cache=False, logits_to_keep=1)
            yield stream[LAYER].flatten(0, 1).float().cpu()

    with tempfile.TemporaryDirectory() as folder:
        places = (Path(folder) / f"vectors-{i}" for i in range(2))
        taken = seconds(lambda: write_shards(next(places), vectors()), device, 1)
    return [at_least("harvest: tokens", TIMED * ids_BT.numel() / taken, "/s", 0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same: it is quick")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    load, device = told_load(), "cuda" if torch.cuda.is_available() else "cpu"
    figures: list[Figure] = []
    if asked.tiny or device != "cpu":
        shape, rows = (TINY, 4) if asked.tiny else (LLAMA, 64)
        ceiling = crosscoder.product_rate(shape["hidden_size"], device)
        figures += training(shape, rows, device, ceiling)
        figures += thinking(shape, 4 * rows, device)
        figures += fitting(shape["hidden_size"], device)
        figures += harvesting(shape, rows, device)
    else:
        print("no accelerator: nothing is measured (--tiny shows that all of it runs)")
    told = {"device": torch.cuda.get_device_name() if device != "cpu" else device, "tiny": asked.tiny}
    close("gpu", figures, load, "torch", "transformers", **told)


if __name__ == "__main__":
    main()
