"""Ablation, grafting and training: hand-worked numbers, laws of every architecture, and input that is no good."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from architectures import NAMES, tiny
from stillroom.activations import Place
from stillroom.config import Config
from stillroom.errors import DataError, UsageError
from stillroom.files import write_lines
from stillroom.lenses.ablation import ablate, ablated, jolt, jolted, means, units
from stillroom.lenses.counterfactuals import triples
from stillroom.lenses.grafting import PUT_IN, TAKEN_OUT, added, differences, grafted, parts
from stillroom.lenses.over_training import OverTrainingConfig, at_snapshot, first_beyond, look, snapshots
from stillroom.lenses.patches import cells, patched_runs, plain_runs, positions_of
from stillroom.lenses.selection import CHOSEN
from stillroom.lenses.solving import Exam, examine, sample, solved
from stillroom.lenses.spectra import random_like
from stillroom.lenses.subjects import Subjects
from stillroom.lenses.trials import trial
from stillroom.records import Finding, Lesson, Null
from stillroom.students import Manner, Student, StudentConfig, load, make_student, save
from stillroom.students.adapters import AdapterConfig
from stillroom.training import FitConfig
from toys import problem, student, sums, tokenizer, workplace


def any_student(name: str, seed: int = 0, pauses: int = 0) -> Student:
    words = tokenizer()
    return Student(tiny(name, len(words), seed), words, Manner(pauses=pauses))


def exam(one: Student, count: int = 4) -> Exam:
    """Whatever the student says counts as right: what then changes is what an intervention does."""
    asked = examine(one, sums(count), 4, 8)
    return asked._replace(right=[True] * count)


def test_ablation_is_hand_worked() -> None:
    there = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    mean = torch.tensor([10.0, 20.0, 30.0, 40.0])
    assert ablate(mean)(there).tolist() == [[[10, 20, 30, 40]]]
    assert ablate(mean, 1, 2)(there).tolist() == [[[1, 2, 30, 40]]]
    shaken = jolt(mean, 0, 1, 2)(there) - there
    assert shaken[..., :2].abs().max() == 0
    assert shaken.norm().item() == pytest.approx((27**2 + 36**2) ** 0.5, rel=1e-5)
    assert torch.equal(jolt(mean, 0)(there), jolt(mean, 0)(there))


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_over_all_tokens_of_all_texts_and_no_padding(name: str) -> None:
    one = any_student(name)
    asked = exam(one)
    asked = asked._replace(answers=[answer[: 1 + row] for row, answer in enumerate(asked.answers)])
    found, alone = means(one, asked, 8), means(one, asked, 1)
    for place, mean in found.items():
        torch.testing.assert_close(mean, alone[place], rtol=1e-4, atol=1e-5)
    assert all(solved(one, asked, 8))
    for unit in units(one):
        ablated(one, asked, unit, found, 8)
        jolted(one, asked, unit, found, 8, 0)
    assert all(solved(one, asked, 8))
    assert {(u.layer, u.module) for u in units(one)} >= {(1, "layer"), (2, "mlp"), (2, "head 4")}


@pytest.mark.parametrize("name", NAMES)
def test_grafting_nothing_or_everything_gives_the_base_or_the_student(name: str) -> None:
    base, one = any_student(name), any_student(name, seed=1, pauses=0)
    asked, theirs = exam(one), exam(base)
    weights = {n: p.detach() for n, p in one.model.named_parameters()}
    kept = {n: p.clone() for n, p in weights.items()}
    difference = differences({n: p.detach() for n, p in base.model.named_parameters()}, weights)
    assert all(grafted(one, asked, difference, PUT_IN, difference, 8))
    assert all(grafted(one, asked, difference, TAKEN_OUT, {}, 8))
    assert all(grafted(one, theirs, difference, PUT_IN, {}, 8))
    assert all(grafted(one, theirs, difference, TAKEN_OUT, difference, 8))
    named = {(part.layer, part.module): part.names for part in parts(list(difference))}
    assert {name for names in named.values() for name in names} == set(difference)
    for layer in (1, 2):
        assert named[layer, "attention"] | named[layer, "mlp"] < named[layer, "layer"]
        assert not named[layer, "attention"] & named[layer, "mlp"]
        assert not any("norm" in n.partition(f".{layer - 1}.")[2].partition(".")[0] for n in named[layer, "attention"])
    assert all(torch.equal(p, kept[n]) for n, p in one.model.named_parameters())


def test_weights_come_back_after_an_exception_and_random_differences_are_as_long() -> None:
    one = student()
    kept = {n: p.detach().clone() for n, p in one.model.named_parameters()}
    with pytest.raises(KeyError), added(one.model, {n: torch.ones_like(p) for n, p in kept.items()}):
        assert not torch.equal(one.model.lm_head.weight, kept["lm_head.weight"])
        raise KeyError
    assert all(torch.equal(p, kept[n]) for n, p in one.model.named_parameters())
    difference = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert random_like(difference, 1).norm().item() == pytest.approx(5)
    assert random_like(torch.zeros(2, 2), 1).abs().max() == 0
    wide = differences({"e": torch.zeros(2, 3)}, {"e": torch.ones(4, 3)})  # tokens that the base lacks
    assert wide["e"].shape == (2, 3)
    with pytest.raises(DataError, match="one architecture and width"):
        differences({"e": torch.zeros(2, 3)}, {"e": torch.zeros(2, 4)})


@pytest.mark.parametrize("name", NAMES)
def test_patching_a_run_with_itself_is_the_run_in_every_architecture(name: str) -> None:
    one = trial(any_student(name, pauses=2), triples(sums(9)))
    assert one is not None
    plain = plain_runs(one.asked, 4)
    grid = cells(2, ("residual", "attention", "mlp"), positions_of(one.asked.texts))
    for after in patched_runs(one.asked, one.asked.student, one.asked.texts, grid, 4).values():
        torch.testing.assert_close(torch.tensor(after.right_N), torch.tensor(plain.right_N), rtol=0, atol=1e-9)
    whole = plain_runs(one.asked._replace(texts=one.sources), 4)
    embedded = patched_runs(one.asked, one.asked.student, one.sources, grid[:1], 4)[grid[0]]
    torch.testing.assert_close(torch.tensor(embedded.right_N), torch.tensor(whole.right_N), rtol=0, atol=1e-4)


def test_a_sample_has_as_many_of_each_number_of_steps() -> None:
    mixed = [*sums(3), *(problem(f"s{i}", ("1 + 1", 2)) for i in range(4))]
    assert [p.id for p in sample(mixed, 2)] == ["s0", "s1", "sum-0", "sum-1"]


def test_activations_that_are_no_numbers_are_refused() -> None:
    one = student()
    asked = exam(one)
    mean = means(one, asked, 8)
    one.model.model.layers[1].mlp.down_proj.weight.data[0] = torch.nan
    with pytest.raises(DataError, match="activations hold NaN"):
        means(one, asked, 8)
    with pytest.raises(DataError, match="no finite numbers"):
        ablated(one, asked, units(one)[0], mean, 8)


FIT = FitConfig(updates=16, batch_size=4, warmup=2, learning_rate=1e-2, precision="float32", threads=1, snapshots=3)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_last_checkpoint_is_the_student_and_the_first_is_another(adapter: str, tmp_path: Path) -> None:
    folders = {name: workplace(tmp_path / name / name).out for name in ("lessons", "problems", "base")}
    asked = sums(4)
    write_lines(folders["lessons"] / "lessons.jsonl", [
        Lesson(problem=p.id, prompt=p.question, completion="The answer is 2.") for p in asked
    ])  # fmt: skip
    write_lines(folders["problems"] / "train.jsonl", asked)
    save(student(), folders["base"])
    config = StudentConfig(fit=FIT, pauses=1, adapter=AdapterConfig(name=adapter, dropout=0.0))
    folder = workplace(tmp_path / "student" / "one", parents=folders).out
    make_student(config, workplace(folder, parents=folders))
    kept = snapshots(folder)
    assert list(kept) == [3, 6, 16]
    ids = torch.tensor([load(folder).prompt(asked[0].question)])
    last, first = (at_snapshot(folder, kept[update], "cpu").model(ids).logits for update in (16, 3))
    torch.testing.assert_close(last, load(folder).plain().model(ids).logits, rtol=0, atol=1e-5)
    assert not torch.allclose(first, last, atol=1e-2)
    save_file({"model.nothing": torch.zeros(1)}, tmp_path / "step-1.safetensors")
    with pytest.raises(DataError, match="is no weight of the student"):
        at_snapshot(folder, tmp_path / "step-1.safetensors", "cpu")


def row(value: float, metric: str = "m" + CHOSEN) -> Finding:
    null = Null(name="n", value=0.2, low=0.1, high=0.3)
    return Finding(
        lens="toy", subject="s", reference="", layer=1, module="m", position="p", metric=metric, value=value, n=9,
        low=value - 0.1, high=value + 0.1, nulls=(null,),
    )  # fmt: skip


def test_the_first_update_beyond_the_null_is_hand_worked() -> None:
    series = {u: [row(v), row(0.9, "another")] for u, v in ((2, 0.5), (8, 0.3), (32, 0.6), (128, 0.9))}
    (found,) = first_beyond(series)  # 2 lies beyond, but 8 does not: for good since 32
    assert (found.value, found.low, found.high) == (32, 8, 32)
    assert (found.nulls[0].name, found.nulls[0].value) == ("the last update", 128)
    assert list(first_beyond({2: [row(0.5)], 8: [row(0.3)]})) == []
    assert next(first_beyond({2: [row(0.9)]})).low == 0


class ToyConfig(Config):
    name: str = "toy"


def test_a_lens_looks_at_every_checkpoint(tmp_path: Path, capsys) -> None:
    save(student(), tmp_path)
    (tmp_path / "snapshots").mkdir()
    for step in (10, 2):
        own = {f"model.{n}": torch.full_like(p, step) for n, p in student().model.named_parameters()}
        save_file(own, tmp_path / "snapshots" / f"step-{step}.safetensors")

    def see(_config: ToyConfig, subjects: Subjects) -> list[Finding]:
        return [row(one.model.lm_head.weight[0, 0].item()).model_copy(update={"subject": who, "metric": "w"})
                for who, one in subjects.students.items()]  # fmt: skip

    people = {"base": student(), "s": student()}
    config = OverTrainingConfig(lens={"name": "toy"})
    found = look({"toy": (ToyConfig, see)}, config, Subjects(people, {}, {}, folders={"base": tmp_path, "s": tmp_path}))
    assert [(f.subject, f.metric, f.value) for f in found] == [
        ("s", "toy: w, update 2", 2.0), ("s", "toy: w, update 10", 10.0),
    ]  # fmt: skip
    assert look({"toy": (ToyConfig, see)}, config, Subjects(people, {}, {}, {"s": tmp_path / "none"})) == []
    assert "train them with fit.snapshots=8" in capsys.readouterr().err
    for name in ("tyo", "over_training"):
        with pytest.raises(UsageError, match="known are toy"):
            look({"toy": (ToyConfig, see)}, OverTrainingConfig(lens={"name": name}), Subjects(people, {}, {}))
    assert Place(1, "mlp") in units(people["s"])[0].places


def test_an_exam_ends_with_the_context() -> None:
    """GPT-2 has a vector for each of its positions and none beyond."""
    words, rows = tokenizer(), sums(2)
    longest = max(map(len, student().prompts([row.question for row in rows])))
    tight, full = (Student(tiny("gpt2", len(words), n_positions=longest + room), words, Manner()) for room in (5, 0))
    assert max(map(len, examine(tight, rows, 96, 2).answers)) <= 5
    with pytest.raises(DataError, match="leaves no room"):
        examine(full, rows, 96, 2)
