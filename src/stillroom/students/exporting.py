"""Students for other people's programs: a plain Hugging Face folder, proved by reloading it, and a model card.

What the card tells is the caller's to decide; how a folder looks is transformers' business.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stillroom.errors import DataError, StoreError
from stillroom.files import folder_atomic

TOLERANCE = 1e-5
"""The largest difference between a logit before and after."""
PROBE = "Ann has 3 eggs and buys 4 more. How many eggs does she have?\nThe answer is 7."


def card(title: str, front: Mapping[str, Any], sections: Mapping[str, Any]) -> str:
    """A model card in Markdown with YAML front matter; entries that are None are left out.

    `front` is what the hub reads (`base_model`, `datasets`, `license`, `tags`, …). `sections` maps headings (data,
    teacher, variant, config, scores) to a text, a mapping (a table of two columns), or a list of mappings that share
    their keys (a table with a column for each).
    """
    known = {key: value for key, value in front.items() if value is not None}
    head = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=1000) if known else ""
    parts = [f"---\n{head}---\n", f"# {_line(title)}\n"]
    parts += [f"## {_line(name)}\n\n{_body(content)}\n" for name, content in sections.items() if content is not None]
    return "\n".join(parts)


def _body(content: Any) -> str:
    if not content:
        return "Nothing is known."
    if isinstance(content, Mapping):
        known = [(key, value) for key, value in content.items() if value is not None]
        return _table(["", ""], known)
    if isinstance(content, list | tuple):
        columns = list(dict.fromkeys(key for row in content for key in row))
        return _table(columns, [[row.get(column) for column in columns] for row in content])
    return str(content)


def _table(columns: list[str], rows: Any) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    """One cell's text: no bar or line break of it may end the cell."""
    return "" if value is None else _line(f"{value:.4g}" if isinstance(value, float) else value).replace("|", "\\|")


def _line(value: Any) -> str:
    return " ".join(str(value).split())


def export_merged(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    target: Path,
    card_text: str,
    beside: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write model, tokenizer and `README.md` as `target`, a folder that any program which knows the architecture loads.

    The folder is loaded again before it appears: its logits on a probe text may differ from `model`'s by `TOLERANCE`
    at most. `model` is plain: merge an adapter first (`adapters.merged`). `beside` writes what else the
    folder holds. Raises `DataError` for a target that exists or a model that is not plain, and `StoreError` where the
    reloaded logits or tokens differ.
    """
    if target.exists():
        raise DataError(f"{target} exists; remove it, or export into another folder")
    if not isinstance(model, PreTrainedModel) or getattr(model, "is_quantized", False):
        raise DataError(f"{type(model).__name__} holds an adapter or quantised weights; export adapters.merged(model)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with folder_atomic(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(card_text, encoding="utf-8")
        beside(folder)
        _compare(model, tokenizer, folder, target)


def _compare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, target: Path) -> None:
    """Load `folder` and hold it against what it was written from, in the same dtype and on the same device."""
    words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids, again_ids = (kind(PROBE, add_special_tokens=False)["input_ids"] for kind in (tokenizer, words))
    if ids != again_ids:
        raise StoreError(f"{target} was not written: its tokenizer reads a probe text as {again_ids}, before as {ids}")
    attention = model.config._attn_implementation  # noqa: SLF001 (there is no public name)
    again: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=model.dtype, attn_implementation=attention, local_files_only=True
    )
    again.to(model.device)  # type: ignore[arg-type]
    difference = float((_logits(model, ids) - _logits(again, ids)).abs().max())
    if not difference <= TOLERANCE:  # NaN is no agreement
        raise StoreError(
            f"{target} was not written: reloaded, its logits differ by {difference:.2g}, where {TOLERANCE:.0e} is "
            "allowed. The model holds what its class does not save: merge adapters, undo changes to layers and buffers"
        )


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Logits of one row of ids in float32, of shape (1, T, V); the model's mode is left as it was."""
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    try:
        logits_1TV: Tensor = model(torch.tensor([ids], device=model.device), use_cache=False).logits
    finally:
        model.train(training)
    return logits_1TV.float()
