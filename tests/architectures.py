"""Five published architectures made tiny: two random layers of width 32, seeded; nothing is fetched.

They differ in what trips a general claim: Llama's head is its own, Gemma's, BLOOM's and GPT-2's are tied to the
embeddings; Qwen2 and Gemma share keys between heads; Gemma's heads are wider than its width; BLOOM has no positions
table; GPT-2's linear layers are transformers' Conv1D, whose weights lie the other way round.
"""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

ENDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "initializer_range": 0.2}
"""The spread is large enough that different inputs give different outputs."""
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE |= {"max_position_embeddings": 64} | ENDS
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.0, "attention_dropout": 0.0} | ENDS
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64} | ENDS
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}

CONFIGS: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {**WIDE, "tie_word_embeddings": False}),
    "qwen2": (Qwen2Config, {**WIDE, "num_key_value_heads": 2}),
    "gemma": (GemmaConfig, {**WIDE, "num_key_value_heads": 1, "head_dim": 16}),
    "bloom": (BloomConfig, BLOOM),
    "gpt2": (GPT2Config, GPT2),
}
NAMES = tuple(CONFIGS)
TIED = {"gemma", "bloom", "gpt2"}


def config(name: str, vocabulary: int = 64, attention: str = "eager", **settings: Any) -> PretrainedConfig:
    """The tiny config with `settings` in place of its own."""
    kind, own = CONFIGS[name]
    return kind(vocab_size=vocabulary, attn_implementation=attention, **{**own, **settings})


def tiny(name: str, vocabulary: int = 64, seed: int = 0, attention: str = "eager", **settings: Any) -> PreTrainedModel:
    """A model in float32, in evaluation, the same for the same seed; `settings` go to its config."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config(name, vocabulary, attention, **settings))
    return model.eval()


def tokens(rows: int = 2, length: int = 12, vocabulary: int = 64, seed: int = 1) -> torch.Tensor:
    """Random token ids of shape (rows, length), no padding among them."""
    return torch.randint(2, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))
