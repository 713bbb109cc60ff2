"""Words with which a text turns, found in tokens of any tokenizer, and what their latents do to the words to come."""

import copy
from pathlib import Path

import torch

from stillroom.crosscoder import caused, describe
from stillroom.crosscoder.causal import Abreast
from stillroom.crosscoder.data import Live
from stillroom.crosscoder.exam import Exam
from stillroom.crosscoder.fitting import fit_crosscoder
from stillroom.crosscoder.measuring import Address
from stillroom.crosscoder.model import CrosscoderConfig
from stillroom.crosscoder.steps import masks
from stillroom.crosscoder.triggers import cues, marked, spelled
from stillroom.crosscoder.words import functions
from stillroom.students import Manner, Student
from stillroom.students.scratch import bpe_tokenizer, word_tokenizer
from stillroom.training import FitConfig
from toys import llama, workplace

TEXT = " It is 7. Wait it is 8. Therefore the sum is 9. But no. Thus it is 8."
WORDS = word_tokenizer([TEXT], range(12))
TURNS = ["self-reflection", "deduction", "contrast", "deduction"]


def test_turns_are_marked_where_their_words_begin_whatever_the_tokens() -> None:
    for tokenizer in (WORDS, bpe_tokenizer([TEXT] * 3, 300)):
        words = spelled(tokenizer)
        ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        marks = marked(words, ids)
        assert [mark for mark in marks if mark] == TURNS
        first = marks.index("self-reflection")
        assert tokenizer.decode(ids[first:]).strip().startswith("Wait it")
        assert [mark for mark in marked(words, ids, first + 1) if mark] == TURNS[
            1:
        ]  # what stands before is not its own
    assert set(spelled(WORDS)) == {"self-reflection", "deduction", "contrast"}  # it has no word for the fourth


def test_cues_end_before_the_word_and_ask_for_all_words_of_the_category() -> None:
    words, ids = spelled(WORDS), WORDS(TEXT, add_special_tokens=False)["input_ids"]
    found = cues(words, "deduction", [ids], [marked(words, ids)], 10)
    assert [WORDS.decode(text).split()[-1] for text, _ in found] == ["8.", "no."]
    assert {WORDS.decode([token]).strip() for token in found[0][1]} == {"Therefore", "Thus"}
    assert len(cues(words, "deduction", [ids], [marked(words, ids)], 1)) == 1


def test_functions_of_words_are_those_whose_words_are_single_tokens() -> None:
    told = {name: pairs for name, _, pairs in functions(WORDS)}
    assert set(told) == {"successor", "doubling", "operand swap"}
    assert told["doubling"] == [(f" {n}", f" {2 * n}") for n in range(1, 6)]
    english = word_tokenizer([" dog dogs car cars book books go went"], [])
    assert {name: pairs for name, _, pairs in functions(english)} == {
        "singular to plural": [(" book", " books"), (" car", " cars"), (" dog", " dogs")]
    }


def test_latents_of_a_planted_turn_are_found_and_lower_the_logit_of_its_word(tmp_path: Path) -> None:
    """A turn makes the subject turn again, by a direction that the base does not have; both read the same tokens."""
    base = llama(len(WORDS), spread=0.02)
    wait = WORDS.convert_tokens_to_ids(" Wait")
    with torch.no_grad():
        table = base.get_input_embeddings().weight
        table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(3)))
        table[:, 0], table[:, 1] = 0, 3  # what all tokens share keeps the size of what the last norm divides by
        base.get_output_embeddings().weight.normal_(generator=torch.Generator().manual_seed(4))
        base.get_output_embeddings().weight[:, :2] = 0
        taught = copy.deepcopy(base)
        taught.get_input_embeddings().weight[wait, 0] = 6.0
        taught.get_output_embeddings().weight[wait, 0] = 5.0
    people = {name: Student(model, WORDS, Manner()) for name, model in (("base", base), ("taught", taught))}
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, len(WORDS), (400, 8), generator=generator)
    ids[::4, 5:8] = wait  # so that two of three cues come after the word itself
    source = Live(people, ids.tolist(), layer=1)
    config = CrosscoderConfig(expansion=8, k=3, k_first=8, anneal=60 * 512, dead_after=20_000)
    settings = FitConfig(updates=120, batch_size=512, learning_rate=5e-3, precision="float32", threads=1)
    fitted = fit_crosscoder(source, config, settings, workplace(tmp_path))
    tokens = source.read(range(200))
    tokens = tokens.at(fitted.normal.usable(tokens).nonzero().squeeze(1))
    words = spelled(WORDS)
    turns = [marked(words, row) for row in source.ids]
    real = describe(fitted.crosscoder, tokens, masks([[{mark} for mark in row] for row in turns], tokens))
    assert real.categories["self-reflection"] >= 100
    texts = cues(words, "self-reflection", source.ids, turns, 40)
    exam = Exam(Abreast(fitted.crosscoder, [base, taught], 1), people["taught"], [], 1, texts)
    told = list(caused(Address("taught", "base", 1), real, {}, exam, "self-reflection", None))
    widest = [f for f in told if f.metric == "change of logit, top 20 %"]
    assert len(widest) == 1 and widest[0].n == 40
    assert widest[0].high < -2
    assert {null.name for null in widest[0].nulls} == {"matched control", "random latents"}
    assert widest[0].high < min(null.low for null in widest[0].nulls)
