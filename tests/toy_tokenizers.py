"""Byte-level tokenizers of no merges in the shapes of well-known ones: their special tokens, templates and traps."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

GENERATE = "{% if add_generation_prompt %}"
LLAMA3 = (
    "{{ bos_token }}"
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n<|eot_id|>' }}"
    "{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    + GENERATE
    + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    + GENERATE
    + "{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN2 = (
    "{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    + GENERATE
    + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}" + GENERATE + "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)


def toy(
    specials: list[str], template: str | None = None, begins: bool = False, **named: str | None
) -> PreTrainedTokenizerFast:
    """256 bytes, then `specials` in order; `begins`: it puts its `bos_token` before every text by itself."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if begins:
        bos = str(named["bos_token"])
        inner.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **named)
    tokenizer.chat_template = template
    return tokenizer


def gpt2_like() -> PreTrainedTokenizerFast:
    """One special token for everything, no pad token, no template, no beginning."""
    end = "<|endoftext|>"
    return toy([end], bos_token=end, eos_token=end, unk_token=end)


def llama3_like() -> PreTrainedTokenizerFast:
    """The template writes the beginning, the tokenizer too; today's date; a reserved pad token that is not set."""
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>"]
    turns = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return toy([*names, *turns], LLAMA3, begins=True, bos_token=names[0], eos_token=names[1])


def gemma_like() -> PreTrainedTokenizerFast:
    names = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    return toy(names, GEMMA, begins=True, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def qwen_like(template: str = QWEN2, eos: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    """No beginning; the pad token is the end of the text, which is another token than the end of the turn, or not."""
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>"]
    return toy(names, template, eos_token=eos, pad_token="<|endoftext|>")


SHAPES = {"gpt2": gpt2_like, "llama3": llama3_like, "gemma": gemma_like, "qwen": qwen_like}
