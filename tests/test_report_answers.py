"""Answers are read off the evidence: above the null or not established, and nothing where nothing was measured."""

import pytest

from report_toys import FINDINGS, LENS, SCORES, finding, score
from stillroom.records import Finding, Null, Score
from stillroom.report.answers import UNANSWERED, attends, concentrates, lives, questions, recovers, solves
from stillroom.report.evidence import Evidence
from stillroom.report.suits import UNCOMPARED
from stillroom.report.thinking import UNTHOUGHT


def test_a_run_without_evidence_answers_nothing() -> None:
    answers = questions(Evidence([], [], []))
    assert len(answers) == 7
    assert all(answer.sentences == [UNANSWERED] for answer in answers[:5])
    assert [answer.sentences for answer in answers[5:]] == [[UNTHOUGHT], [UNCOMPARED]]
    assert "`stillroom run abacus-oracle`" in UNTHOUGHT
    assert "`stillroom run granularity-svamp`" in UNCOMPARED


@pytest.mark.parametrize(
    ("low", "null", "verdict"), [(0.5, 0.125, "read"), (0.18, 0.125, "read"), (0.17, 0.125, "not established"),
                                 (0.1, 0.6, "not established")],
)  # fmt: skip
def test_a_value_is_read_only_above_its_null(low: float, null: float, verdict: str) -> None:
    one = finding("value 2 in top 5, chosen on validation", 0.625, low, 0.75, null, **LENS)
    (told,) = lives(Evidence([], [], [one]))
    share = f"62.5 % [{100 * low:.1f} %, 75.0 %] (n = 50)"
    assert told.startswith(
        f"distilled: By the logit lens, among its top 5 tokens: value 2 {verdict}: {share} at layer 2, answer, "
    )
    assert f"null (null) {100 * null:.1f} % [{100 * null - 5:.1f} %, {100 * null + 5:.1f} %]" in told


@pytest.mark.parametrize(
    ("layer", "position", "base", "verdict"),
    [
        (0, "number 3", 0.1, "told by the operands alone, not read"),
        (0, "answer", 0.1, "told by the operands alone, not read"),
        (2, "number 2", 0.1, "told by the operands alone, not read"),
        (2, "number 3", 0.1, "read"),
        (0, "thought 2", 0.1, "read"),
        (2, "answer", 0.45, "not established beyond the base"),
    ],
)
def test_nothing_is_read_where_it_cannot_have_been_computed_or_the_base_shows_it(
    layer: int, position: str, base: float, verdict: str
) -> None:
    where = {**LENS, "layer": layer, "position": position}
    chosen = finding("value 2 in top 5, chosen on validation", 0.6, 0.5, 0.7, 0.125, **where)
    beside = finding("value 2 in top 5", base, base, base + 0.1, 0.125, **{**where, "subject": "base"})
    (told,) = lives(Evidence([], [], [chosen, beside]))
    assert f"value 2 {verdict}: 60.0 % " in told
    assert told.endswith(f", base there {100 * base:.1f} % [{100 * base:.1f} %, {100 * base + 10:.1f} %].")


def test_only_the_chosen_cell_answers() -> None:
    assert len(lives(Evidence([], [], FINDINGS))) == 1


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.6, 0.9, ", more than"), (0.2, 0.4, ", less than"), (0.4, 0.9, ", no more or less")]
)
def test_a_change_concentrates_only_beyond_an_even_spread(low: float, high: float, verdict: str) -> None:
    (told,) = concentrates(Evidence([], [], [finding("share of squared change", 0.5, low, high, 0.5)]))
    assert verdict in told
    assert told.startswith("normal ↔ distilled: layer 1 50.0 %")
    assert "(n = 50)" in told
    assert "even spread (50.0 %)" in told


def test_the_base_is_no_side_of_the_comparison_of_students() -> None:
    rows = [finding("share of squared change", 0.5, 0.4, 0.6, 0.5, reference="base")]
    assert concentrates(Evidence([], [], rows)) == []


@pytest.mark.parametrize(
    ("train", "test", "memory", "null"),
    [
        ((1.0, 0.96, 1.0), (0.99, 0.95, 1.0), "no memorisation is established", "Test accuracy is above the null"),
        ((1.0, 0.96, 1.0), (0.5, 0.4, 0.6), "part of its training accuracy is memory", "accuracy is above the null"),
        ((0.1, 0.05, 0.2), (0.12, 0.1, 0.2), "no memorisation is established", "accuracy is not above the null"),
    ],
)
def test_memory_and_skill_are_told_by_intervals(train, test, memory: str, null: str) -> None:
    scores = [score("majority", "test", 0.1, 0.05, 0.15), score("s", "train", *train), score("s", "test", *test)]
    (told,) = solves(Evidence([*scores, score("s", "longer", 0.25, 0.2, 0.3)], [], []))
    assert memory in told
    assert null in told
    assert "On longer problems 25.0 % [20.0 %, 30.0 %] (n = 100)." in told
    assert "the most frequent training answer: 10.0 % [5.0 %, 15.0 %] (n = 100)" in told


@pytest.mark.parametrize(("low", "verdict"), [(0.02, "That is not above the null"), (0.5, "That is above the null")])
def test_every_split_stands_beside_its_own_null(low: float, verdict: str) -> None:
    nulls = [score("majority", "test", 0.1, 0.05, 0.15), score("majority", "longer", 0.3, 0.2, 0.4)]
    mine = [score("s", "train", 1, 1, 1), score("s", "test", 0.9, 0.8, 1), score("s", "longer", 0.55, low, 0.6)]
    (told,) = solves(Evidence([*nulls, *mine], [], []))
    test, longer = told.split(" On longer problems ")
    assert "Test accuracy is above the null, the most frequent training answer: 10.0 %" in test
    assert longer.endswith(f"{verdict}, the most frequent training answer: 30.0 % [20.0 %, 40.0 %] (n = 100).")


def steps(student: str, split: str, *rows: tuple[float, int]) -> list[Score]:
    """Scores by number of steps, each a share and of how many, and of all together."""
    whole = sum(value * n for value, n in rows) / sum(n for _, n in rows)
    held = [score(student, split, value, 0, 1, str(i)).model_copy(update={"n": n}) for i, (value, n) in enumerate(rows)]
    return [score(student, split, whole, whole, whole), *held]


def test_another_mix_of_steps_is_no_memory() -> None:
    """Solved are all problems of the one length and none of the other, in training as in test."""
    alike = [*steps("s", "train", (1.0, 80), (0.0, 20)), *steps("s", "test", (1.0, 10), (0.0, 90))]
    (told,) = solves(Evidence(alike, [], []))
    assert "80.0 % [80.0 %, 80.0 %] (n = 100) on training problems, 10.0 %" in told
    assert "training minus test accuracy is 0.0 %" in told
    assert "no memorisation is established" in told


def test_a_gap_that_the_null_has_as_well_is_no_memory() -> None:
    rows = {"train": (0.9, 1000), "test": (0.5, 1000)}
    mine = [s for split, row in rows.items() for s in steps("s", split, row)]
    (told,) = solves(Evidence(mine, [], []))
    assert "part of its training accuracy is memory" in told
    null = [s for split, row in rows.items() for s in steps("majority", split, row)]
    (told,) = solves(Evidence([*mine, *null], [], []))
    assert "no memorisation is established" in told


def test_a_student_without_both_scores_is_left_out() -> None:
    assert [told.split(":")[0] for told in solves(Evidence(SCORES, [], []))] == ["normal"]


def test_no_answer_stands_without_its_n() -> None:
    for answer in questions(Evidence(SCORES, [], FINDINGS)):
        assert answer.sentences in ([UNANSWERED], [UNTHOUGHT], [UNCOMPARED]) or all(
            "(n = " in sentence for sentence in answer.sentences
        )


OTHERS = "training problems minus their copies with other numbers, accuracy"


@pytest.mark.parametrize(("low", "verdict"), [(0.2, "it does worse on them"), (0.1, "no difference is established")])
def test_other_numbers_are_told_beside_their_null(low: float, verdict: str) -> None:
    gap = finding(OTHERS, 0.3, low, 0.4, 0.1, lens="memorising", subject="normal")
    told = {sentence.partition(":")[0]: sentence for sentence in solves(Evidence(SCORES, [], [gap]))}
    null = "null (the most frequent training answer) 10.0 % [5.0 %, 15.0 %]"
    assert f"cost 30.0 % [{100 * low:.1f} %, 40.0 %] (n = 50), {null}: {verdict}." in told["normal"]


def test_of_several_seeds_the_one_is_told_whose_scores_stand_beside_it() -> None:
    costs = [finding(OTHERS, cost, cost, cost, 0.1, lens="memorising", subject=f"normal@{seed}")
             for seed, cost in enumerate((0.3, 0.5, 0.7))]  # fmt: skip
    told = {sentence.partition(":")[0]: sentence for sentence in solves(Evidence(SCORES, [], costs))}
    assert "cost 30.0 % [30.0 %, 30.0 %]" in told["normal"]
    others = [s.model_copy(update={"seed": seed, "value": 0.0}) for s in SCORES for seed in (1, 2)]
    first, *_ = solves(Evidence([*SCORES, *others], [], []))
    assert first.startswith("normal (seed 0, one of 3): 100.0 % [96.0 %, 100.0 %] (n = 100) on training problems")


@pytest.mark.parametrize(
    ("test", "heart", "said"),
    [(0.9, 0.0, "does not show memory of problems"), (0.9, 0.5, "answers are known by heart."), (0.1, 0.0, "")],
)
def test_what_other_numbers_cost_is_memory_only_where_something_else_says_so(
    test: float, heart: float, said: str
) -> None:
    cost = finding(OTHERS, 0.3, 0.2, 0.4, 0.1, lens="memorising", subject="s")
    given = finding(
        "copies that were given their original's answer", heart, heart, heart, 0.1, lens="memorising", subject="s"
    )
    scores = [score("s", "train", 0.9, 0.8, 1), score("s", "test", test, test, test)]
    (told,) = solves(Evidence(scores, [], [cost, given]))
    assert ("part of its training accuracy is memory" in told) == (test < 0.9)
    assert ("does not show memory of problems" in told) == (said == "does not show memory of problems")
    assert said in told


@pytest.mark.parametrize(("low", "verdict"), [(0.3, "the value is used there"), (0.17, "not established")])
def test_a_place_is_named_where_replacing_it_moves_the_answer(low: float, verdict: str) -> None:
    moved = finding("answer moved, chosen on validation", 0.5, low, 0.7, 0.125, lens="patching", position="number 3")
    (told,) = lives(Evidence([], [], [moved]))
    assert told == (
        "distilled: Another problem's state at layer 1, number 3 moves the answer to that problem's in 50.0 % "
        f"[{100 * low:.1f} %, 70.0 %] (n = 50), strongest null (null) 12.5 % [7.5 %, 17.5 %]: {verdict}."
    )


def test_the_parts_that_are_needed_are_those_the_whole_grid_lets_stand() -> None:
    def part(module: str, value: float, adjusted: float, position: str = "all") -> Finding:
        told = finding("accuracy after mean-ablation", value, 0.0, 0.9, 0.8, lens="ablation", module=module,
                       position=position)  # fmt: skip
        return told.model_copy(update={"p": adjusted, "adjusted": adjusted})

    grid = [part("mlp", 0.2, 0.01), part("attention", 0.1, 0.06), part("head 1", 0.0, 0.0), part("mlp", 0.0, 0.0, "2")]
    (told,) = lives(Evidence([], [], grid))
    assert told.startswith("distilled: Solved without mlp of layer 1 20.0 %")
    assert told.endswith("null (null) 80.0 % [75.0 %, 85.0 %] (n = 50).")
    assert "attention" not in told
    assert "head" not in told
    (told,) = lives(
        Evidence([], [], [part("mlp", 0.9, 0.01)])
    )  # it solves more without it than after the random change
    assert "not established" in told


@pytest.mark.parametrize(("low", "verdict"), [(0.3, "recovered"), (0.17, "not established")])
def test_a_value_is_recovered_beyond_every_reference_and_selectivity_is_told_beside_it(
    low: float, verdict: str
) -> None:
    one = finding("value 2 accuracy, chosen on validation", 0.5, low, 0.7, 0.125, lens="probes", position="thought 1")
    heart = finding("value 2 accuracy of the control, chosen on validation", 0.9, 0.8, 1.0, 0.125, lens="probes")
    selective = finding("value 2 selectivity, chosen on validation", -0.4, -0.5, -0.3, 0.0, lens="probes")
    said = (
        f"distilled: value 2 {verdict}: 50.0 % [{100 * low:.1f} %, 70.0 %] (n = 50) at layer 1, thought 1, "
        "strongest null (null) 12.5 % [7.5 %, 17.5 %]"
    )
    assert recovers(Evidence([], [], [one, heart, selective])) == [f"{said}, selectivity -40.0 % [-50.0 %, -30.0 %]."]
    unmeasured = selective.model_copy(update={"invalid": "one label alone"})
    assert recovers(Evidence([], [], [one, unmeasured])) == [f"{said}."]


@pytest.mark.parametrize(("low", "verdict"), [(0.3, "they attend differently"), (0.17, "not established")])
def test_heads_differ_beyond_the_strongest_null_but_the_self_diff(low: float, verdict: str) -> None:
    metric = "Jensen–Shannon divergence in bits, chosen on validation"
    moved = finding(metric, 0.5, low, 0.7, 0.125, lens="attention", module="head 2", position="answer")
    zero = Null(name="self-diff", value=0.0, low=0.0, high=0.0)
    told = attends(Evidence([], [], [moved.model_copy(update={"nulls": (*moved.nulls, zero)})]))
    assert told == [
        "normal ↔ distilled, read at answer: head 2 of layer 1 is furthest apart, 0.500 bits "
        f"[{low:.3f}, 0.700] (n = 50), strongest null (null) 0.125 bits [0.075, 0.175]: {verdict}."
    ]
    assert attends(Evidence([], [], [moved.model_copy(update={"nulls": (zero,)})])) == []
    assert attends(Evidence([], [], [moved.model_copy(update={"reference": "base"})])) == []
    assert attends(Evidence([], [], [moved.model_copy(update={"metric": "Jensen–Shannon divergence in bits"})])) == []
