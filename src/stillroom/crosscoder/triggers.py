"""Words with which a text turns: it goes back, concludes, tries another way, contrasts (Baek & Tegmark 2025).

A category is the set of its trigger words. A latent belongs to it that fires at these words; what the words' latents do
is read one token earlier, in the logits with which the words would come next.
"""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

TRIGGERS: Mapping[str, tuple[str, ...]] = {
    "self-reflection": ("Wait",),
    "deduction": ("Therefore", "Thus"),
    "alternative": ("Alternatively",),
    "contrast": ("However", "But"),
}
Spelled = Mapping[str, Sequence[tuple[int, ...]]]


def spelled(tokenizer: PreTrainedTokenizerBase) -> Spelled:
    """The token ids of each category's words, after a blank and without one. Words of which a token is unknown are
    left out, and so are categories without a word."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for category, words in TRIGGERS.items():
        rows: list[list[int]] = tokenizer(
            [blank + word for word in words for blank in (" ", "")], add_special_tokens=False
        )["input_ids"]
        known = [tuple(row) for row in rows if row and tokenizer.unk_token_id not in row]
        if known:
            found[category] = list(dict.fromkeys(known))
    return found


def marked(words: Spelled, ids: Sequence[int], start: int = 0) -> list[str]:
    """For each token the category whose word begins there, "" elsewhere and before `start`, where the text begins
    that is the model's own."""
    out = [""] * len(ids)
    for at in range(start, len(ids)):
        for category, rows in words.items():
            if any(tuple(ids[at : at + len(row)]) == row for row in rows):
                out[at] = category
    return out


def cues(
    words: Spelled, category: str, ids: Sequence[Sequence[int]], marks: Sequence[Sequence[str]], most: int
) -> list[tuple[list[int], list[int]]]:
    """Up to `most` texts that end where a word of the category comes next, and the first tokens of its words."""
    first = sorted({row[0] for row in words[category]})
    found = [
        (list(row[:at]), first) for row, told in zip(ids, marks, strict=True) for at in range(1, len(row))
        if told[at] == category
    ]  # fmt: skip
    step = max(1, len(found) // most) if most else 1
    return found[::step][:most]
