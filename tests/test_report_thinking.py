"""What thoughts carry is said by the intervals: used or not, held or not, known or not, each beside its null."""

import pytest

from report_toys import finding
from stillroom.records import Finding, Null
from stillroom.report.answers import questions
from stillroom.report.evidence import Evidence
from stillroom.report.thinking import IN_THOUGHTS, UNASKED, UNDISTURBED, carries

OTHER = "another answer's reasoning"


def changed(module: str, low: float, null: float = 0.05, metric: str = "answers changed", **more: object) -> Finding:
    told = {"lens": "faithfulness", "subject": "latent", "reference": "undisturbed", "module": module}
    return finding(metric, low + 0.1, low, low + 0.2, null, **{**told, "position": "", **more})


def held(lens: str, low: float, **more: object) -> Finding:
    told = {"lens": lens, "subject": "latent", "module": "residual stream", "layer": 2, "position": "thought 3"}
    return finding(f"value 4{IN_THOUGHTS}", low + 0.1, low, low + 0.2, 0.6, **{**told, **more})


def said(*findings: Finding) -> str:
    (told,) = carries(Evidence([], [], findings))
    return told


@pytest.mark.parametrize(
    ("noise", "swap", "verdict"),
    [
        (0.5, 0.5, "what stands in them is used"),
        (0.05, 0.5, "what stands in them is used"),
        (0.5, 0.1, "they are used, but that their content is used is not established"),
        (0.09, 0.1, "that they are used is not established"),
    ],
)
def test_thoughts_are_used_only_where_others_change_more_than_other_words_do(noise, swap, verdict) -> None:
    told = said(changed("noise thoughts", noise), changed(OTHER, swap))
    assert told.startswith(f"latent: Its answer changes in {100 * swap + 10:.1f} % [{100 * swap:.1f} %, ")
    assert f"; null (null) 5.0 % [0.0 %, 10.0 %]: {verdict}." in told
    assert told.count("(not established)") == (noise <= 0.1) + (swap <= 0.1)
    assert told.endswith(UNASKED)


def test_what_the_same_answer_s_thoughts_do_is_no_null_of_being_used() -> None:
    high = Null(name="same answer's reasoning", value=0.9, low=0.9, high=1.0)
    swap = changed(OTHER, 0.5)
    told = said(changed("noise thoughts", 0.5), swap.model_copy(update={"nulls": (high, *swap.nulls)}))
    assert "what stands in them is used" in told
    assert "null (null) 5.0 %" in told
    bare = changed(OTHER, 0.5).model_copy(update={"nulls": (high,)})
    assert said(changed("mean thoughts", 0.5), bare).startswith("latent: Its answer changes in 60.0 % [50.0 %, 70.0 %]")


def test_without_any_is_the_chain_s_beginning_alone() -> None:
    early = [changed("early answering", 0.1 * k, position=f"after {at}% of the chain") for k, at in ((3, 30), (0, 0))]
    assert "changes in 10.0 % [0.0 %, 20.0 %] (n = 50) without any thought (not established), in " in said(
        *early, changed("noise thoughts", 0.5)
    )


@pytest.mark.parametrize(
    ("low", "verdict"), [(0.3, ": they carry the answer."), (0.1, "carry the answer is not established.")]
)
def test_thoughts_carry_the_answer_where_it_comes_along(low: float, verdict: str) -> None:
    came = changed(OTHER, low, metric="answers that became the other's")
    told = said(changed("mean thoughts", 0.5), came)
    assert f"becomes that question's in {100 * low + 10:.1f} %" in told
    assert verdict in told


def test_a_student_that_reasons_in_words_has_no_thoughts_to_ask_about() -> None:
    assert carries(Evidence([], [], [changed(OTHER, 0.5, subject="normal")])) == []


@pytest.mark.parametrize(
    ("lows", "verdict"), [((0.7, 0.5), "held (lenses: 1 of 2)"), ((0.65, 0.5), "not established"),
                          ((0.7, 0.66), "held (lenses: 2 of 2)")],
)  # fmt: skip
def test_a_value_is_held_where_a_lens_ranks_it_above_its_null(lows: tuple[float, float], verdict: str) -> None:
    told = said(held("logit_lens", lows[1]), held("probes", lows[0]))
    number = (
        f"{lows[0] + 0.1:.3f} [{lows[0]:.3f}, {lows[0] + 0.2:.3f}] (n = 50), strongest null (null) 0.600 [0.550, 0.650]"
    )
    assert f"(AUROC): value 4 {verdict}, probes at layer 2, thought 3 {number}." in told
    assert UNDISTURBED in told


@pytest.mark.parametrize(("low", "verdict"), [(0.3, ": it is used there."), (0.1, "used there is not established.")])
def test_a_value_that_is_held_is_used_only_where_patching_says_so(low: float, verdict: str) -> None:
    place = {"lens": "patching", "subject": "latent", "module": "residual", "position": "thought 3"}
    here = finding("answer moved", low + 0.1, low, low + 0.2, 0.05, **{**place, "layer": 2})
    elsewhere = finding("answer moved", 0.9, 0.8, 1.0, 0.05, **{**place, "layer": 1})
    told = said(held("probes", 0.7), elsewhere, here)
    assert f"moves the answer most at layer 2, thought 3, in {100 * low + 10:.1f} %" in told
    assert verdict in told
    assert "Another value put there" not in said(held("probes", 0.5), here)  # nothing is held there
    lucky = here.model_copy(update={"p": 0.01, "adjusted": 0.05})
    assert "used there is not established." in said(held("probes", 0.7), elsewhere, lucky)


@pytest.mark.parametrize("established", [True, False])
def test_readers_are_told_by_their_claims(established: bool) -> None:
    def score(value: float) -> dict[str, object]:
        return {"n": 12, "balanced": {"value": value, "low": value - 0.1, "high": value + 0.1}}

    claim = {"best control": "majority", "established": established}
    oracle = {
        "claims": {"value": {"injection": claim, "text": {**claim, "established": False}}},
        "scores": {"value": {"injection": score(0.8), "text": score(0.4), "majority": score(0.5)}},
    }
    (told,) = carries(Evidence([], [], [], {"latent": oracle}))
    assert told == f"latent: {UNDISTURBED} " + (
        "Readers know, by balanced accuracy above every control: `value` (injection) 80.0 % [70.0 %, 90.0 %] (n = 12), "
        "best control (majority) 50.0 % [40.0 %, 60.0 %]; for the other 1 of 2 claims it is not established."
        if established
        else "That readers know anything of them is not established for any of 2 claims."
    )
    answers = questions(Evidence([], [], [], {"latent": oracle}))
    assert answers[5].question == "What do the continuous thoughts carry?"
    assert answers[5].sentences == [told]
