"""The cost of an answer: worked by hand on a toy shape, and equal to what torch counts as it computes."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from stillroom.evaluation import cost
from stillroom.evaluation.cost import CostConfig, Work, findings, make_cost, positions, seconds, work, works
from stillroom.files import read_lines, write_lines
from stillroom.records import Finding, Prediction
from stillroom.students import save
from stillroom.students.folders import Thoughts
from stillroom.students.memory import Shape, shape_of
from stillroom.students.thinking import mlp
from toys import MODELS, student, sums, workplace

SHAPE = Shape(
    ends=0, matrices=100, rest=0, linears=(), vocabulary=10, width=4, layers=2, heads=1, queries=4, keys=4,
    feed_forward=8, gated=False, activation=1,
)  # fmt: skip


def test_positions_are_worked_by_hand() -> None:
    # 3 positions: 3 × 2 × 100 for the weights; 1 + 2 + 3 keys seen, 4 × 2 layers × 4 queries each
    assert positions(SHAPE, 0, 3) == 600 + 32 * 6
    # one more behind them sees 4
    assert positions(SHAPE, 3, 1) == 200 + 32 * 4
    assert positions(SHAPE, 0, 3) + positions(SHAPE, 3, 1) == positions(SHAPE, 0, 4)


def test_an_answer_is_worked_by_hand() -> None:
    # head: 2 × 4 × 10 = 80 a token; of 2 tokens the first alone is read, at position 4
    assert work(SHAPE, 3, 2) == Work(792, 0, 328 + 160)
    # 2 thoughts between 2 tokens: positions 4 to 7 see 4 + 5 + 6 + 7 = 22; the network of 50 weights runs twice
    thoughts = 4 * 200 + 32 * 22 + 2 * 2 * 50
    assert work(SHAPE, 3, 1, thoughts=2, around=2, projection=50) == Work(792, thoughts, 80)
    assert work(SHAPE, 3, 0).total == 792


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_it_is_what_torch_counts_when_each_token_is_read_alone(kind: str) -> None:
    model = MODELS[kind]()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    cache = DynamicCache()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for t in range(5):
            model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
    head = 2 * 16 * 40
    # read 3, choose 3 of which 2 are read; torch's heads ran at the 2 positions before too
    assert work(shape_of(model.config), 3, 3).total + 2 * head == counter.get_total_flops()


def test_pauses_and_thoughts_are_counted() -> None:
    problems = sums(2)
    said = [Prediction(problem=p.id, text="", tokens=3, stopped=True) for p in problems]
    plain, paused = (works(student(pauses=n), problems, said)[0] for n in (0, 2))
    assert paused.prompt > plain.prompt
    assert plain.thoughts == 0
    one = student()
    prompt = len(one.prompt(problems[0].question))
    assert plain == work(shape_of(one.model.config), prompt, 4)
    unasked = [Prediction(problem=p.id, text="", tokens=0, stopped=False) for p in problems]
    assert works(student(), problems, unasked) == [Work(0, 0, 0)] * 2


def test_a_student_that_thinks_pays_for_its_thoughts_and_their_network() -> None:
    one = student()
    told = Thoughts(count=3, begin="Ann", end=" has")
    thinking = replace(one, manner=one.manner.model_copy(update={"thoughts": told}), projection=mlp(16, 8))
    (problem, *_) = sums(1)
    said = [Prediction(problem=problem.id, text="", tokens=1, stopped=False)]
    (found,) = works(thinking, [problem], said)
    prompt = len(thinking.prompt(problem.question))
    assert found.thoughts == positions(shape_of(one.model.config), prompt, 5) + 3 * 2 * (16 * 8 + 8 * 16)


def test_findings_are_means_with_their_null() -> None:
    found = findings("a", [Work(10, 0, 2), Work(20, 0, 4)], [9.0, 19.0])
    assert [(f.position, f.value) for f in found] == [("", 18), ("prompt", 15), ("thoughts", 0), ("answer", 3)]
    assert all(f.n == 2 and f.low <= f.value <= f.high and f.nulls[0].value == 14 for f in found)


def test_the_stage_keeps_seconds_out_of_its_result(tmp_path) -> None:
    parents = {name: workplace(tmp_path / name).out for name in ("student", "problems", "predictions")}
    save(student(), parents["student"])
    problems = sums(4)
    said = [Prediction(problem=p.id, text="", tokens=2, stopped=False) for p in problems]
    write_lines(parents["problems"] / "test.jsonl", problems)
    write_lines(parents["predictions"] / "test.jsonl", said)
    places = [workplace(tmp_path / name, parents=parents) for name in ("a", "b")]
    for at in places:
        make_cost(CostConfig(timed=2, new_tokens=4, threads=1), "one", at)
        assert next(iter(at.measured.values())) > 0
    one, two = ((at.out / "findings.jsonl").read_bytes() for at in places)
    assert one == two
    assert {f.subject for f in read_lines(places[0].out / "findings.jsonl", Finding)} == {"one"}


def test_the_first_answer_warms_up_and_is_not_counted(monkeypatch) -> None:
    clock = iter([0.0, 100.0, 100.0, 101.0, 101.0, 103.0])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    assert seconds(student(), sums(2), 2) == [1.0, 2.0]
