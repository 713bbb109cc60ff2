"""Functions of words: numbers that arithmetic relates, and words that a language does. Pairs of single tokens alone."""

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

Pairs = list[tuple[str, str]]
LARGEST = 100
LEAST = 3
"""Pairs from which a parallelogram has an interval."""
SPOKEN = {
    "present to past": (
        "go went, see saw, make made, take took, give gave, find found, tell told, think thought, come came, "
        "know knew, get got, say said, run ran, write wrote, hold held, bring brought, begin began, keep kept, "
        "leave left, feel felt, show showed, call called, ask asked, need needed, turn turned, move moved"
    ),
    "singular to plural": (
        "book books, car cars, dog dogs, house houses, tree trees, word words, year years, day days, hand hands, "
        "friend friends, child children, man men, woman women, foot feet, town towns, river rivers, game games, "
        "song songs, door doors, eye eyes, night nights, school schools, number numbers, egg eggs"
    ),
    "English to Spanish": (
        "house casa, water agua, day día, night noche, life vida, world mundo, man hombre, woman mujer, time tiempo, "
        "year año, hand mano, head cabeza, city ciudad, country país, school escuela, door puerta, book libro, "
        "good bueno, big grande, new nuevo, three tres, two dos, white blanco, black negro"
    ),
}


def functions(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, str, Pairs]]:
    """(name, words of a sentence that come before, pairs) of the functions with at least three pairs whose words are
    single tokens with their blank; a swap of operands is of texts whose numbers are such tokens."""
    known = [n for n in range(LARGEST) if _single(tokenizer, f" {n}")]
    for name, pairs in _numbers(known).items():
        if len(pairs) >= LEAST:
            yield name, "Ann has", pairs
    for name, told in SPOKEN.items():
        listed = [tuple(f" {word}" for word in pair.split()) for pair in told.split(",")]
        pairs = [(a, b) for a, b in listed if _single(tokenizer, a) and _single(tokenizer, b)]
        if len(pairs) >= LEAST:
            yield name, "The next word is", pairs


def _single(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return len(ids) == 1 and ids[0] != tokenizer.unk_token_id


def _numbers(known: list[int]) -> dict[str, Pairs]:
    whole, largest = set(known), max(known, default=0)
    numbers = [n for n in known if n]
    swapped = [(n, largest - n) for n in numbers if 2 * n < largest and largest - n in whole]
    return {
        "successor": [(f" {n}", f" {n + 1}") for n in numbers if n + 1 in whole],
        "doubling": [(f" {n}", f" {2 * n}") for n in numbers if 2 * n in whole],
        "operand swap": [(f" {a} + {b}", f" {b} + {a}") for a, b in swapped],
    }
