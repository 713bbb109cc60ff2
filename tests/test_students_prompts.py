"""A question becomes the same tokens at training and at every reading: one beginning, one end, in every style."""

import importlib.util
import re
from pathlib import Path
from typing import get_args

import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stillroom.errors import ConfigError, DataError
from stillroom.students.prompts import (
    FORMATS,
    Style,
    completion_ids,
    completions_ids,
    prompt_ids,
    prompts_ids,
    render,
    stop_ids,
)
from toy_tokenizers import GENERATE, LLAMA3, QWEN2, QWEN3, SHAPES, gemma_like, gpt2_like, llama3_like, qwen_like, toy
from toys import tokenizer as words

QUESTIONS = ["How many?", "", "{question} {0} {x} % \\n", "a\nb", "¿Cuántos? 三 🥚", "x " * 40]
CASES = [
    (name, style) for name, shape in SHAPES.items() for style in get_args(Style) if style != "chat" or name != "gpt2"
]
CHATS = {
    "llama3": llama3_like,
    "gemma": gemma_like,
    "qwen2": qwen_like,
    "qwen3": lambda: qwen_like(QWEN3),
    "Llama 3.2": lambda: published("llama3_2"),
    "Gemma 3": lambda: published("gemma3"),
    "Qwen 2.5": lambda: published("qwen2_5"),
    "Qwen 3": lambda: published("qwen3"),
}


def published(name: str) -> PreTrainedTokenizerFast:
    """A toy tokenizer with a template as its model publishes it, which TRL has a copy of."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None and spec.origin is not None
    template = (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text()
    names = ["<s>", "</s>", *dict.fromkeys(re.findall(r"<\|[a-z_]+\|>|</?[a-z_]+>", template))]
    return toy(names, template, begins="bos_token" in template, bos_token="<s>", eos_token="</s>")


def spelled(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(ids))


def test_a_question_stands_whole_in_every_style() -> None:
    """A question with braces or percent signs is not a format string."""
    for style in FORMATS:
        for question in QUESTIONS:
            assert question in render(question, style)
        assert render("", style) == ""


def test_the_plain_style_ends_in_a_line_end() -> None:
    assert render("How many?", "plain") == "How many?\n"


@pytest.mark.parametrize(
    ("style", "shape", "asked"),
    [
        ("plain", "gpt2", "Why?\n"),
        ("plain", "llama3", "<|begin_of_text|>Why?\n"),
        ("bare", "llama3", "<|begin_of_text|>Why?"),
        (
            "alpaca",
            "qwen",
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\nWhy?\n\n### Response:",
        ),
        (
            "llama3",
            "llama3",
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("gemma", "gemma", "<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"),
        ("gemma", "gpt2", "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"),
        (
            "chat",
            "llama3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("chat", "gemma", "<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"),
        (
            "chat",
            "qwen",
            "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_the_prompt_of_each_style_by_hand(style: Style, shape: str, asked: str) -> None:
    """Pitfall 16: a template other than the one that the model knows."""
    tokenizer = SHAPES[shape]()
    assert spelled(prompt_ids("Why?", style, tokenizer), tokenizer) == asked


def test_special_tokens_of_a_style_are_single_tokens_where_the_vocabulary_has_them() -> None:
    """Pitfall 16: a turn marker in pieces is another template."""
    tokenizer = gemma_like()
    ids = prompt_ids("Why?", "gemma", tokenizer)
    assert len(ids) == 1 + 1 + len("user\nWhy?") + 1 + 1 + 1 + len("model\n")
    assert len(prompt_ids("Why?", "gemma", gpt2_like())) == len(render("Why?", "gemma"))


@pytest.mark.parametrize(("shape", "style"), CASES)
def test_the_beginning_stands_once_where_the_tokenizer_wants_it(shape: str, style: Style) -> None:
    """Pitfall 16, template mismatch: tokenizer and template both write the beginning-of-text token."""
    tokenizer = SHAPES[shape]()
    wants = shape in ("llama3", "gemma")
    for ids in prompts_ids(QUESTIONS, style, tokenizer):
        assert ids.count(tokenizer.bos_token_id) == wants
        assert ids[:1] == [tokenizer.bos_token_id] or not wants
    assert prompt_ids("", style, tokenizer) == ([tokenizer.bos_token_id] if wants else [])


def test_a_template_that_forgets_the_beginning_gets_it() -> None:
    """Pitfall 16, template mismatch: no beginning at all where the model expects one."""
    tokenizer = llama3_like()
    with_it = prompt_ids("Why?", "chat", tokenizer)
    tokenizer.chat_template = LLAMA3.replace("{{ bos_token }}", "")
    assert prompt_ids("Why?", "chat", tokenizer) == with_it


def test_a_tokenizer_that_writes_an_end_has_no_beginning() -> None:
    """Pitfall 16: an end that is also called a beginning, as in GPT-2, must not start every prompt."""
    tokenizer = gpt2_like()
    post = tokenizer.backend_tokenizer
    post.post_processor = type(llama3_like().backend_tokenizer.post_processor)(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 256)]
    )
    assert tokenizer("a")["input_ids"][-1] == 256
    assert prompt_ids("a", "plain", tokenizer) == tokenizer("a\n", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(("shape", "style"), CASES)
def test_a_batch_is_its_rows(shape: str, style: Style) -> None:
    """Law 4 for tokens: a lesson encoded among many is the question asked alone."""
    tokenizer = SHAPES[shape]()
    assert prompts_ids(QUESTIONS, style, tokenizer) == [prompt_ids(q, style, tokenizer) for q in QUESTIONS]
    assert completions_ids(QUESTIONS, style, tokenizer) == [completion_ids(q, style, tokenizer) for q in QUESTIONS]
    assert prompts_ids([], style, tokenizer) == completions_ids([], style, tokenizer) == []


@pytest.mark.parametrize(
    ("shape", "ends"),
    [
        ("gpt2", {"plain": "<|endoftext|>", "llama3": "<|endoftext|>", "gemma": "<|endoftext|>"}),
        (
            "llama3",
            {
                "plain": "<|end_of_text|>",
                "alpaca": "<|end_of_text|>",
                "gemma": "<|end_of_text|>",
                "llama3": "<|eot_id|> <|end_of_text|>",
                "chat": "<|eot_id|> <|end_of_text|>",
            },
        ),
        ("gemma", {"plain": "<eos>", "gemma": "<end_of_turn> <eos>", "chat": "<end_of_turn> <eos>"}),
        ("qwen", {"plain": "<|im_end|>", "alpaca": "<|im_end|>", "chat": "<|im_end|>"}),
    ],
)
def test_a_completion_ends_at_the_first_of_the_stops(shape: str, ends: dict[Style, str]) -> None:
    """Pitfall 16: an end that is not learned, or at which decoding does not stop."""
    tokenizer = SHAPES[shape]()
    for style, stops in ends.items():
        assert tokenizer.convert_ids_to_tokens(stop_ids(style, tokenizer)) == stops.split()
        assert spelled(completion_ids("It is 9.", style, tokenizer), tokenizer) == "It is 9." + stops.split()[0]


def test_the_end_of_a_chat_turn_need_not_be_the_end_of_the_text() -> None:
    """Pitfall 16: a base model whose template ends turns at `<|im_end|>` and whose texts end at `<|endoftext|>`."""
    tokenizer = qwen_like(eos="<|endoftext|>")
    assert stop_ids("chat", tokenizer) == (258, 256)
    assert completion_ids("", "chat", tokenizer) == [258]
    assert stop_ids("plain", tokenizer) == (256,)


def test_a_template_that_ends_no_turn_or_in_plain_words_ends_with_the_text() -> None:
    """Pitfall 16: an end that the vocabulary does not hold would be several tokens, and never be met."""
    for after in ("", "<|im_end|>", " </turn>"):
        tokenizer = gpt2_like()
        tokenizer.chat_template = "{% for m in messages %}{{ m.content + '" + after + "' }}{% endfor %}"
        assert stop_ids("chat", tokenizer) == (256,)


@pytest.mark.parametrize(
    "template", ["{% for m in messages %}{{ m.content }}{% endfor %}", "{{ messages[0].content }}"]
)
def test_what_follows_no_answer_ends_none(template: str) -> None:
    """Pitfall 16: the start of another turn, or of the text, taken for an end."""
    for first, last in (("", GENERATE + "<|im_start|>{% endif %}"), ("<|im_start|>", "")):
        assert stop_ids("chat", qwen_like(first + template + last)) == (258,)


def test_an_unknown_end_is_not_the_unknown_word() -> None:
    """Pitfall 16: a word-level vocabulary answers with `<unk>` for an end of turn that it does not hold."""
    tokenizer = words()
    assert stop_ids("llama3", tokenizer) == stop_ids("gemma", tokenizer) == (tokenizer.eos_token_id,)


@pytest.mark.parametrize("name", CHATS)
def test_training_tokens_are_the_templates_own(name: str) -> None:
    """Pitfall 16: the conversation that is learned is the one that the template would write, and is asked alike."""
    tokenizer = CHATS[name]()
    question, completion = "How many?", "Step 1: 1 + 1 = 2\nThe answer is 2."
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": completion}]
    options = {"tokenize": False, "date_string": "26 Jul 2024"}
    whole = tokenizer.apply_chat_template(turns, **options)
    asked = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, enable_thinking=False, **options)
    assert whole.startswith(asked)
    prompt = prompt_ids(question, "chat", tokenizer)
    taught = [*prompt, *completion_ids(completion, "chat", tokenizer)]
    assert spelled(prompt, tokenizer) == asked
    assert spelled(taught, tokenizer).rstrip() == whole.rstrip()
    assert taught == tokenizer(whole.rstrip(), add_special_tokens=False)["input_ids"]


def test_a_block_of_thinking_is_closed_before_the_answer() -> None:
    """Pitfall 16, template mismatch: Qwen 3 writes an empty block before answers, and none where it lets them think."""
    tokenizer = qwen_like(QWEN3)
    assert spelled(prompt_ids("Why?", "chat", tokenizer), tokenizer).endswith("assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    "date", ["{{ strftime_now('%Y-%m-%d') }}", "{% macro day() %}{{ strftime_now('%H:%M') }}{% endmacro %}{{ day() }}"]
)
def test_a_template_that_asks_the_clock_is_told_a_fixed_day(date: str) -> None:
    """A student that was taught in July would be asked another prompt in August."""
    tokenizer = qwen_like(date + QWEN2)
    assert spelled(prompt_ids("Why?", "chat", tokenizer), tokenizer) == "26 Jul 2024" + spelled(
        prompt_ids("Why?", "chat", qwen_like()), qwen_like()
    )


def test_chat_without_a_template_names_the_other_styles() -> None:
    for call in (prompt_ids, completion_ids):
        with pytest.raises(ConfigError, match="no chat template; choose one of plain, bare, alpaca, llama3, gemma"):
            call("Why?", "chat", gpt2_like())


def test_a_template_that_drops_the_question_is_refused() -> None:
    """Templates for pictures read lists of parts, and render nothing of a plain text."""
    parts = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    with pytest.raises(ConfigError, match=r"leaves out 'Why\?'"):
        prompt_ids("Why?", "chat", qwen_like(parts))


def test_a_tokenizer_without_an_end_is_refused() -> None:
    """Pitfall 16: a student that was never shown an end never stops."""
    with pytest.raises(DataError, match="no end-of-text token"):
        completion_ids("It is 9.", "plain", toy([]))
