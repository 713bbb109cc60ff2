"""Questions and the founding measures, worked by hand on one trace of three thoughts."""

import json
from pathlib import Path

import pytest

from stillroom.errors import DataError, UsageError
from stillroom.oracle import founding, questions, scoring
from stillroom.oracle.questions import STRATEGIES, Asked, Seen
from stillroom.records import Thought, Trace


def trace(name: str = "p", answer: str = "42", **outputs: str) -> Trace:
    """Three thoughts; every output is the answer but those that are named, as in `zero_1="7"`."""
    every = [f"{kind} {i}" for kind in questions.KINDS for i in range(3)] + [f"early {k}" for k in range(4)] + ["off"]
    said = dict.fromkeys(every, answer) | {name.replace("_", " "): text for name, text in outputs.items()}
    thoughts = tuple(
        Thought(
            step=i, norm=2.4, cosine_to_previous=None if i == 0 else -0.5, sparsity=0, entropy=1.26,
            top=((" 7", 0.4), (" egg", 0.3), (" eggs", 0.2), ("\n", 0.05), ("<eos>", 0.05)),
        )
        for i in range(3)
    )  # fmt: skip
    return Trace(
        problem=name, student="s", question="Ann has 5 eggs and gets 37?", gold="42", steps=("5", "12", "42"),
        partner="q", thoughts=thoughts, answer=answer, outputs=said, losses=dict.fromkeys(said, 0.0),
    )  # fmt: skip


def label(strategy: str, seen: Trace, held: tuple[int | None, ...] = ()) -> list[tuple[int | None, str]]:
    return list(STRATEGIES[strategy].labels(Seen(seen, questions.HELPS, held)))


def test_the_critical_step_and_its_ties() -> None:
    two = trace(zero_1="7", noise_1="7", zero_0="7")
    assert label("critical by change", two) == [(None, "step 1")]
    assert label("critical by change", trace(zero_1="7", zero_0="7")) == [(None, "none")]
    assert label("critical by change", trace()) == [(None, "none")]
    costs = trace().model_copy(update={"losses": {"zero 0": 0.1, "zero 1": 0.2, "zero 2": 1.0}})
    assert label("critical by loss", costs) == [(None, "step 2")]
    close = trace().model_copy(update={"losses": {"zero 0": 0.97, "zero 1": 0.2, "zero 2": 1.0}})
    assert label("critical by loss", close) == [(None, "none")]
    small = trace().model_copy(update={"losses": {"zero 0": 0.0, "zero 1": 0.0, "zero 2": 0.04}})
    assert label("critical by loss", small) == [(None, "none")]


def test_removed_replaced_and_redundant() -> None:
    one = trace(zero_0="41", swap_2="40")
    assert label("removed", one) == [(0, "41"), (1, "no change"), (2, "no change")]
    assert label("replaced", one) == [(0, "no change"), (1, "no change"), (2, "40")]
    assert label("redundant", one) == [(None, "1 2")]
    assert label("redundant", trace(zero_0="1", zero_1="1", zero_2="1")) == [(None, "none")]


def test_nothing_is_asked_about_a_replacement_by_itself() -> None:
    own = trace().model_copy(update={"partner": "p"})
    asked = list(questions.ask(questions.seen([own, trace()]), ["replaced", "removed"], 0))
    assert questions.counts(asked) == {"replaced": 3, "removed": 6}
    assert {one.row for one in asked if one.strategy == "replaced"} == {1}


def test_an_answer_is_settled_only_where_it_stays() -> None:
    assert label("settled", trace(early_0="1", early_2="3")) == [(None, "3")]
    assert label("settled", trace()) == [(None, "0")]
    assert label("early output", trace(early_0="1")) == [(0, "1"), (1, "42"), (2, "42")]


def test_thinking_and_its_verdict() -> None:
    ways = [trace("a"), trace("b", early_0="7"), trace("c", answer="7", early_0="42"), trace("d", answer="7")]
    assert [seen.effect for seen in questions.seen(ways)] == [
        questions.RIGHT, questions.HELPS, questions.HURTS, questions.WRONG,
    ]  # fmt: skip
    assert label("thinking changes", ways[1]) == [(None, "yes")]
    assert label("thinking helps", ways[1]) == [(None, "helps")]
    assert label("summary", ways[1]) == [(None, "settled after 1 ; critical none ; thinking yes")]


def test_tokens_values_and_the_question() -> None:
    assert label("top tokens", trace())[0] == (0, "7 egg eggs")
    assert label("token class", trace())[0] == (0, "word")
    assert label("entropy", trace())[0] == (0, "1")
    assert label("value", trace(), (1, None, -3)) == [(0, "12"), (2, "5")]
    assert label("value", trace(), (2, -1, -4)) == []  # the answer's own step, and one that is not there
    asked = Asked(0, "p", "question", None, "", "Ann has 5 eggs and gets 37?")
    assert questions.right(asked, "Ben had 5 and 37")
    assert not questions.right(asked, "Ann has 37 eggs and gets 5?")


def test_every_strategy_asks_in_several_ways_and_is_found_again() -> None:
    for name, strategy in STRATEGIES.items():
        assert len(strategy.phrasings) > 1 or name in founding.THERE
        for phrasing in strategy.phrasings:
            step = 2 if "{i}" in phrasing else None
            assert questions.find(phrasing.replace("{i}", "2")) == (name, step)
    assert questions.find("How are you?") is None
    with pytest.raises(UsageError, match="did you mean 'settled'"):
        list(questions.ask([], ["setled"], 0))


def test_every_answer_is_right_about_itself() -> None:
    rows = questions.seen([trace(zero_0="41", early_0="7")], (0, 1, None))
    asked = list(questions.ask(rows, list(STRATEGIES), 0))
    assert {one.strategy for one in asked} == set(STRATEGIES)
    assert all(questions.right(one, f" {one.answer} ") for one in asked)
    assert all("{" not in one.text for one in asked)


def test_labels_are_balanced_until_one_is_used_up() -> None:
    pool = [Asked(i, str(i), "thinking changes", None, "?", "yes" if i < 90 else "no") for i in range(100)]
    chosen = questions.balanced(pool, 30, 0)
    assert [sum(one.answer == a for one in chosen) for a in ("yes", "no")] == [20, 10]
    assert len(questions.balanced(pool, 1000, 0)) == 100
    assert len(questions.balanced(pool, 30, 0, {"thinking changes": 4})) == 4
    outputs = [Asked(i, str(i), "removed", 0, "?", "no change" if i < 50 else str(i)) for i in range(100)]
    assert sum(one.answer == "no change" for one in questions.balanced(outputs, 40, 0)) == 20
    each = questions.one_each([*outputs, *outputs, *pool], 0)
    assert len(each) == 200
    assert len({(one.strategy, one.row) for one in each}) == 200


def test_the_founding_measures_are_computed_as_there() -> None:
    """Their step i is what our step i + 1 consumes; their last step removes nothing."""
    one = trace(zero_0="1", zero_1="13", zero_2="7000", early_0="7", early_1="42", early_2="7")
    assert founding.zeroed(one) == ["13", "7000", "42"]
    assert founding.critical(one) == 1
    assert founding.critical(trace(zero_0="1")) == 0  # a tie of nothing with nothing
    assert founding.convergence(one) == 0  # though it does not stay
    assert founding.convergence(trace()) == -1
    assert founding.contrastive(one)
    assert founding.redundant(one) == [2]
    assert [founding.step_said(text) for text in ("Step 3.", "Encoding", "At step 2, not Step 4", "x")] == [
        3,
        -1,
        2,
        None,
    ]
    assert founding.near("Step 0", "Encoding")
    assert not founding.near("Step 1", "Encoding")
    assert founding.mostly("Steps 5", "Steps 0 5 can be removed.")
    assert not founding.mostly("Steps 0 5", "Steps 5 can be removed.")
    assert not founding.mostly("None.", "Steps 5 can be removed.")


def test_the_founding_measures_have_trivial_guesses() -> None:
    rows = [trace(zero_1="7", early_0="7"), trace(), trace()]
    told = founding.trivial(rows)
    assert told["founding critical"]["guesses"]["Step 0"] == 1.0
    assert told["founding contrastive"]["guesses"]["No"] == pytest.approx(2 / 3)
    assert told["founding convergence"]["value"] == 1.0  # one step of grace: the encoding and step 0 are neighbours
    assert told["founding redundancy"]["value"] == 1.0


def test_a_loose_check_has_a_better_guess_than_the_most_frequent_answer() -> None:
    answers = ["Encoding"] * 4 + ["Step 1"] * 3 + ["Step 0"] * 2
    taught = [Asked(i, str(i), "founding convergence", None, "?", answer) for i, answer in enumerate(answers)]
    assert scoring.majority(taught, taught[:1]) == ["Step 0"]
    strict = [Asked(i, str(i), "settled", None, "?", answer) for i, answer in enumerate(answers)]
    assert scoring.majority(strict, strict[:1]) == ["Encoding"]


def test_published_results_are_replayed(tmp_path: Path) -> None:
    def side(*rows: tuple[str, bool]) -> dict[str, object]:
        return {
            "details": [
                {"question": f"q{i}", "gold": 1.0, "response": r, "correct": c} for i, (r, c) in enumerate(rows)
            ]
        }

    data = {
        "reasoning": side(("1", True), ("1", True), ("2", False), ("3", False), ("1", True)),
        "no_reasoning": side(("2", False), ("1", True), ("1", True), ("3", False), ("4", False)),
    }
    (tmp_path / "r.json").write_text(json.dumps(data))
    told = founding.replay(tmp_path / "r.json")
    assert (told["n"], told["helped"], told["hurt"], told["altered"]) == (5, 2, 1, 3)
    assert (told["accuracy"], told["accuracy without"]) == (0.6, 0.4)
    assert (told["constant guess"]["guess"], told["constant guess"]["value"]) == ("Yes", 0.6)
    data["no_reasoning"]["details"][1]["question"] = "another"  # type: ignore[index]
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="do not ask the same questions"):
        founding.replay(tmp_path / "r.json")
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(DataError, match="not results in the published format"):
        founding.replay(tmp_path / "r.json")


def test_balanced_accuracy_is_the_mean_over_classes() -> None:
    classes, hits = ["yes"] * 8 + ["no"] * 2, [True] * 8 + [False, False]
    value, low, high = scoring.balanced(classes, hits)
    assert value == 0.5
    assert low <= 0.5 <= high
    value, low, high = scoring.balanced(list("abcdefghij"), [True, False] * 5)
    assert (value, low < 0.4, high > 0.6) == (0.5, True, True)  # classes of one row have an interval too


def test_a_claim_needs_its_interval_above_every_control() -> None:
    def at(value: float, low: float, high: float) -> dict[str, dict[str, float]]:
        return {"balanced": {"value": value, "low": low, "high": high}}

    scores = {"q": {"injection": at(0.8, 0.7, 0.9), "majority": at(0.5, 0.4, 0.6), "linear probe": at(0.9, 0.85, 0.95)}}
    claim = scoring.claims(scores, ("injection",))["q"]["injection"]
    assert (claim["established"], claim["best control"], claim["best lens"]) == (True, "majority", "linear probe")
    assert claim["over lens"] == pytest.approx(-0.1)
    assert claim["clears lenses"] is False
    weaker = {"q": scores["q"] | {"linear probe": at(0.6, 0.5, 0.69), "logit lens": at(0.2, 0.1, 0.3)}}
    assert scoring.claims(weaker, ("injection",))["q"]["injection"]["clears lenses"] is True
    weaker["q"]["logit lens"] = at(0.5, 0.1, 0.71)  # not the best, and not cleared either
    assert scoring.claims(weaker, ("injection",))["q"]["injection"]["clears lenses"] is False
    del weaker["q"]["linear probe"], weaker["q"]["logit lens"]
    assert scoring.claims(weaker, ("injection",))["q"]["injection"]["clears lenses"] is None
    scores["q"]["output only"] = at(0.66, 0.6, 0.71)
    assert not scoring.claims(scores, ("injection",))["q"]["injection"]["established"]
