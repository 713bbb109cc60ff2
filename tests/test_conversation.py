"""A conversation says what the latent engine says: same answers, same thoughts, same interventions."""

import threading
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

import toys
from conversation_toys import COUNT, QUESTIONS, speaker, thinking
from stillroom.conversation import KINDS, Change, Conversation, Turn, Way, contrast
from stillroom.errors import UsageError
from stillroom.students.thoughts import Noise, Skip, Swap, Variant, Zero, answer_variants, think_and_answer

ASKED, OTHER = QUESTIONS[0], QUESTIONS[1]


def engine(*variants: Variant, questions: tuple[str, ...] = (ASKED,)) -> list[Any]:
    """What the engine says of the first question."""
    student = thinking()
    return answer_variants(student.thinker(), student.prompts(questions), variants, 8, vectors=True)[0]


def text(answer: Any) -> str:
    return str(thinking().tokenizer.decode(answer.completion.ids, skip_special_tokens=True)).strip()


def vectors(turn: Turn) -> torch.Tensor:
    return torch.tensor([shown.values for shown in turn.thoughts])


def said(change: Change) -> Turn:
    return speaker().say(ASKED, Way("", (change,)))


def test_an_undisturbed_turn_is_the_engines_with_every_early_decode() -> None:
    turn = speaker().say(ASKED, Way())
    answers = engine(*(Variant(count) for count in range(COUNT + 1)))
    assert turn.early == tuple(text(answer) for answer in answers)
    assert turn.answer == turn.early[-1]
    assert turn.undisturbed is None
    torch.testing.assert_close(vectors(turn), answers[-1].thoughts_Kd, rtol=1e-4, atol=1e-4)


def test_change_norm_and_cosine_are_of_what_was_consumed() -> None:
    first, second = speaker().say(ASKED, Way()).thoughts[:2]
    a, b = torch.tensor(first.values), torch.tensor(second.values)
    assert first.change == ()
    torch.testing.assert_close(torch.tensor(second.change), b - a, rtol=1e-3, atol=1e-4)
    assert second.norm == pytest.approx(float(b.norm()), rel=1e-4)
    assert second.cosine_to_previous == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-4)


@pytest.mark.parametrize("step", range(COUNT))
def test_each_intervention_is_the_engines(step: int) -> None:
    zero, noise, skip = (engine(Variant(COUNT, (one,)))[0] for one in (Zero(step), Noise(step), Skip(step)))
    swap = engine(Variant(COUNT, (Swap(step, (1, 0)),)), questions=(ASKED, OTHER))[0]
    for kind, answer in (("zero", zero), ("noise", noise), ("swap", swap)):
        turn = said(Change(step, kind, OTHER if kind == "swap" else ""))
        assert turn.answer == turn.early[-1] == text(answer), kind
        torch.testing.assert_close(vectors(turn), answer.thoughts_Kd, rtol=1e-4, atol=1e-4)
        assert turn.thoughts[step].replaced == kind
    turn = said(Change(step, "skip"))
    assert turn.answer == text(skip)
    assert turn.thoughts[step].values == ()
    kept = [shown.values for shown in turn.thoughts if shown.step != step]
    torch.testing.assert_close(torch.tensor(kept), skip.thoughts_Kd, rtol=1e-4, atol=1e-4)


def test_a_zeroed_thought_is_seen_to_be_zero_and_the_undisturbed_answer_stands_beside() -> None:
    turn = said(Change(1, "zero"))
    assert (turn.thoughts[1].norm, turn.thoughts[1].sparsity) == (0.0, 1.0)
    assert turn.undisturbed == speaker().say(ASKED, Way()).answer


def test_a_mean_is_taken_over_the_company() -> None:
    student = thinking()
    others = think_and_answer(student.thinker(), student.prompts(QUESTIONS[3:]), COUNT, 1)
    mean_d = torch.stack([answer.thoughts_Kd[1] for answer in others]).mean(0)
    torch.testing.assert_close(vectors(said(Change(1, "mean")))[1], mean_d, rtol=1e-4, atol=1e-4)


def test_a_swap_with_the_question_itself_is_the_identity() -> None:
    turn = said(Change(1, "swap", ASKED))
    assert turn.answer == turn.undisturbed
    torch.testing.assert_close(vectors(turn), vectors(speaker().say(ASKED, Way())), rtol=1e-4, atol=1e-4)


def test_a_swap_takes_the_newest_other_question_of_the_conversation() -> None:
    talk = Conversation(speaker())
    for question in (QUESTIONS[2], OTHER, ASKED):
        talk.ask(question)
    turn = talk.change(Change(0, "swap"))
    assert turn is not None
    assert vectors(turn)[0].tolist() == vectors(said(Change(0, "swap", OTHER)))[0].tolist()


def test_without_company_mean_and_swap_say_what_is_missing() -> None:
    alone = speaker(company=())
    for kind in ("mean", "swap"):
        with pytest.raises(UsageError, match="other question"):
            alone.say(ASKED, Way("", (Change(0, kind),)))


def test_thoughts_off_are_none_and_zero_keeps_the_tokens_around() -> None:
    off, none = (speaker().say(ASKED, Way(name)) for name in ("off", "0"))
    wanted = engine(Variant(None), Variant(0))
    assert (off.answer, none.answer) == tuple(text(answer) for answer in wanted)
    assert off.thoughts == none.thoughts == off.early == ()


@pytest.mark.parametrize(
    ("way", "why"),
    [
        (Way("", (Change(COUNT, "zero"),)), "count from 0 to 2"),
        (Way("off", (Change(0, "zero"),)), "asked to think none"),
        (Way("999999999"), "positions"),
        (Way("40"), "positions"),
    ],
)
def test_a_way_that_cannot_be_gone_is_refused_and_not_kept(way: Way, why: str) -> None:
    talk = Conversation(speaker())
    talk.ask(ASKED)
    with pytest.raises(UsageError, match=why):
        talk.turn_to(Way("60") if way.thoughts == "40" else way)
    assert talk.way == Way()
    assert len(talk.turns) == 1


def test_unknown_names_are_told_the_known() -> None:
    with pytest.raises(UsageError, match="zero"):
        Way("", (Change(0, "zeroo"),))
    with pytest.raises(UsageError, match="a number or off"):
        Way("many")


def test_questions_that_are_empty_or_too_long_are_refused() -> None:
    words = speaker(toys.student())
    for one in (speaker(), words):
        with pytest.raises(UsageError, match="empty"):
            one.say(" \n", Way())
        with pytest.raises(UsageError, match=r"ask a shorter one|longest question"):
            one.say("eggs " * 20_000, Way())


def test_a_student_of_words_answers_and_has_no_thought_to_change() -> None:
    one = speaker(toys.student(), name="words")
    turn = one.say(ASKED, Way())
    assert (turn.student, turn.thoughts, turn.early) == ("words", (), ())
    for way in (Way("2"), Way("", (Change(0, "zero"),))):
        with pytest.raises(UsageError, match="reasons in words"):
            one.say(ASKED, way)
    with pytest.raises(UsageError, match="no thoughts to ask about"):
        one.ask_oracle(ASKED, "Summarize the thinking.")


def test_fewer_thoughts_drop_the_changes_that_have_no_thought_left() -> None:
    talk = Conversation(speaker())
    talk.change(Change(0, "zero"))
    talk.change(Change(2, "zero"))
    talk.change(Change(2, "noise"))
    assert [change.kind for change in talk.way.changes] == ["zero", "noise"]
    talk.thoughts("2")
    assert talk.way == Way("2", (Change(0, "zero"),))
    talk.restore()
    assert talk.way == Way("2")


def test_compare_asks_the_other_the_same_and_a_student_is_like_itself() -> None:
    talk = Conversation(speaker())
    talk.ask(ASKED)
    mine, theirs, same = talk.compare(speaker(name="twin"))
    assert (mine.student, theirs.student, theirs.question) == ("toy", "twin", ASKED)
    assert same.alike
    assert same.cosines == pytest.approx([1.0] * COUNT, abs=1e-4)
    assert contrast(mine, replace(theirs, answer="another", thoughts=())).cosines == ()


def test_only_the_last_turns_are_kept_where_that_is_asked() -> None:
    talk, whole = Conversation(speaker(), keep=2), Conversation(speaker())
    for question in QUESTIONS[:4]:
        talk.ask(question)
        whole.ask(question)
    assert [turn.question for turn in talk.turns] == QUESTIONS[2:4]
    assert len(whole.turns) == 4


def test_many_askers_at_once_are_answered_as_if_they_were_alone() -> None:
    one = speaker()
    ways = [Way(), Way("", (Change(0, "zero"),)), Way("1"), Way("off")] * 3
    alone = [speaker().say(ASKED, way).answer for way in ways]
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda row=row, way=way: found.update({row: one.say(ASKED, way).answer}))
        for row, way in enumerate(ways)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[row] for row in range(len(ways))] == alone


def test_a_turn_is_plain_data() -> None:
    data = asdict(said(Change(0, "zero")))
    assert data["way"]["changes"] == ({"step": 0, "kind": "zero", "other": ""},)
    assert set(KINDS) == {"zero", "mean", "noise", "swap", "skip"}
