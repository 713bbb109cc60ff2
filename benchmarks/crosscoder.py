"""A BatchTopK crosscoder's training step beside a plain one: dense encode, `torch.topk`, dense decode.

    .venv/bin/python benchmarks/crosscoder.py [--quick]      (--quick: two rounds at each width, not 7 and 3)

Both start from the same weights, see the same batches, and take the whole step: forward, backward, clipping, fused
AdamW. Their losses must agree at every update. Bars: 1.3 × the plain step in the same precision, 2.5 × one in float32.
The share of the machine's matrix-product rate is that of the plain step's arithmetic, most of which ours avoids.
"""

import copy
import statistics
import sys
import time

import torch
from figures import Figure, at_least, close, told_load
from torch import Tensor, nn

from stillroom.crosscoder.model import Crosscoder, CrosscoderConfig, initial
from stillroom.crosscoder.objective import CrosscoderObjective

THREADS, BATCH, K, EXPANSION, MODELS = 2, 2048, 64, 16, 2
WIDTHS = {256: 7, 1024: 3}
"""Rounds that are timed at each width."""
BARS = {"bfloat16": 1.3, "float32": 2.5}
SAME = 0.02
"""How far the losses of the first updates may lie apart, of their size."""


class Plain(nn.Module):
    """The peer, from the same start."""

    def __init__(self, start: Crosscoder) -> None:
        super().__init__()
        shape = (start.latents, start.models, start.width)
        self.encoder = nn.Parameter(start.encoder_FW.detach().view(shape).permute(1, 2, 0).contiguous())
        self.encoder_bias = nn.Parameter(start.encoder_bias_F.detach().clone())
        self.decoder = nn.Parameter(start.decoder_FW.detach().view(shape).permute(1, 0, 2).contiguous())
        self.decoder_bias = nn.Parameter(start.decoder_bias_W.detach().view(shape[1:]).clone())

    def forward(self, x_BMD: Tensor) -> Tensor:
        value_BF = (torch.einsum("bmd,mdf->bf", x_BMD, self.encoder) + self.encoder_bias).relu()
        with torch.no_grad():
            score_BF = value_BF * self.decoder.norm(dim=2).sum(dim=0)
            best = score_BF.flatten().topk(K * len(x_BMD), sorted=False).indices
            mask_BF = torch.zeros_like(score_BF).flatten().index_fill_(0, best, 1).view_as(score_BF)
        written_BMD = torch.einsum("bf,mfd->bmd", value_BF * mask_BF, self.decoder) + self.decoder_bias
        return (x_BMD - written_BMD.float()).square().mean()


class Ours(nn.Module):
    def __init__(self, start: Crosscoder, k: int = K) -> None:
        super().__init__()
        config = CrosscoderConfig(k=k, expansion=EXPANSION, aux=0)
        self.objective = CrosscoderObjective(copy.deepcopy(start), config)

    def forward(self, x_BMD: Tensor) -> Tensor:
        return self.objective(x_BMD.flatten(1))["reconstruction"]


class Side:
    """One crosscoder in training, with its own optimizer."""

    def __init__(self, module: nn.Module, precision: str, device: str) -> None:
        self.module, self.precision, self.device = module.to(device), precision, device
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-3, fused=True)

    def step(self, x_BMD: Tensor) -> tuple[float, float]:
        """(seconds, loss) of one update."""
        began = time.perf_counter()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss = self.module(x_BMD)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        told = loss.item()
        return time.perf_counter() - began, told


def batches(width: int, device: str):
    """Sparse mixtures of random directions, so that there is something to learn."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4 * width, MODELS * width, generator=generator) / width**0.5
    while True:
        code = torch.rand(BATCH, 4 * width, generator=generator) * (
            torch.rand(BATCH, 4 * width, generator=generator) < 0.02
        )
        yield (code @ directions).view(BATCH, MODELS, width).mul(4).to(device)


def product_rate(width: int, device: str) -> float:
    """bfloat16 matrix products a second of this machine, in FLOP, at the encoder's shape."""
    a = torch.randn(BATCH, MODELS * width, dtype=torch.bfloat16, device=device)
    b = torch.randn(EXPANSION * width, MODELS * width, dtype=torch.bfloat16, device=device)
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        nn.functional.linear(a, b)[0, 0].item()
        seconds.append(time.perf_counter() - began)
    return 2 * a.numel() * len(b) / min(seconds)


def operations(width: int) -> int:
    """Those of a plain step's matrix products."""
    return 5 * 2 * BATCH * MODELS * width * EXPANSION * width


def measure(width: int, rounds: int, device: str) -> list[Figure]:
    start = initial(CrosscoderConfig(k=K, expansion=EXPANSION, decoder_norm=0.3), MODELS, width, 0)
    sides = {
        "ours": Side(Ours(start), "bfloat16", device),
        "bfloat16": Side(Plain(start), "bfloat16", device),
        "float32": Side(Plain(start), "float32", device),
    }
    source = batches(width, device)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(2 + rounds):
        x_BMD = next(source)
        order = list(sides)[i % 3 :] + list(sides)[: i % 3]
        told = {name: sides[name].step(x_BMD) for name in order}
        losses = {name: loss for name, (_, loss) in told.items()}
        assert max(losses.values()) - min(losses.values()) < SAME * losses["float32"], losses
        for name, (took, _) in told.items() if i >= 2 else ():
            seconds[name].append(took)
    median = {name: statistics.median(rows) for name, rows in seconds.items()}
    share = operations(width) / median["ours"] / product_rate(width, device)
    print(f"width {width}: " + ", ".join(f"{name} {1 / value:.2f} steps/s" for name, value in median.items()))
    print(f"width {width}: the plain step's products at {share:.2f} of its bfloat16 rate; losses {losses}")
    figures = []
    for name, bar in BARS.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["ours"], strict=True))
        told = f"width {width}: steps a second, of a plain {name} one"
        more = {"steps_a_second": round(1 / median["ours"], 3), "product_share": round(share, 3)}
        figures.append(at_least(told, ratio, "x", bar, **more))
    return figures


def main() -> None:
    torch.set_num_threads(THREADS)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    load = told_load()
    quick = "--quick" in sys.argv
    figures = [
        row for width, rounds in WIDTHS.items() for row in measure(width, max(2, rounds // (3 if quick else 1)), device)
    ]
    close("crosscoder", figures, load, "torch", device=device, threads=THREADS)


if __name__ == "__main__":
    main()
