"""Recipes become plans; an undisturbed run of `abacus-small` holds every stage, and its twin the same bytes."""

import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stillroom import pipeline
from stillroom.errors import ConfigError, DataError, UsageError
from stillroom.files import read_lines
from stillroom.pipeline import STAGES, schema, upto
from stillroom.recipe_files import recipe_names
from stillroom.recipes import load_recipe
from stillroom.records import Comparison, GridRow
from stillroom.store import Stage, Store
from stillroom.tasks.benchmarks.table import BENCHMARKS


def plan(name: str, *overrides: str) -> list[Stage]:
    return pipeline.plan(name, load_recipe(name, list(overrides)))


def test_every_recipe_of_the_package_is_valid_and_plans_all_stages(tmp_path: Path, monkeypatch) -> None:
    asked = ("svamp", "gsm8k", "gsm8k_aug", "gsm_hard", "multiarith")
    for name in ("teacher_cot.jsonl", *(file for task in asked for file in BENCHMARKS[task].study.values())):
        (tmp_path / name).write_text("{}\n")
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    assert {"abacus", "abacus-full", "abacus-small", "svamp-recorded"} <= set(recipe_names())
    for name in recipe_names():
        cells = dict(itertools.islice(load_recipe(name, []).items(), 25))
        some = list(cells.values())
        optional = {"comparison"} if cells.keys() == {""} else set()
        optional |= set() if any(cell.lenses for cell in some) else {"lens"}
        optional |= {"primer"} if all(cell.base.pretrained for cell in some) else set()
        optional |= set() if any(cell.crosscoder for cell in some) else {"crosscoder", "sizes"}
        optional |= {"sizes"} if cells.keys() == {""} else set()
        optional |= set() if any(cell.oracle for cell in some) else {"traces", "reader", "oracle"}
        if all(cell.memorising is None for cell in some):
            optional |= {"copies", "faithfulness", "cost", "memorising"}
        assert {stage.stage for stage in pipeline.plan(name, cells)} == set(STAGES) - optional, name


def test_parents_come_before_their_children() -> None:
    made: set[str] = set()
    for stage in plan("abacus-full"):
        assert {f"{p.stage}/{p.key}" for p in stage.parents.values()} <= made
        made.add(f"{stage.stage}/{stage.key}")


def test_a_report_has_its_parents_in_the_order_of_stages() -> None:
    """By that order it tells how far to run for a figure of several stages."""
    report = plan("abacus")[-1]
    places = [STAGES.index(parent.stage) for parent in report.parents.values()]
    assert places == sorted(places)
    assert len(set(places)) > 5


def test_arms_share_everything_but_their_lessons_and_pauses() -> None:
    people = {s.name: s for s in plan("abacus") if s.stage == "student"}
    assert people["normal"].config["fit"] == people["distilled"].config["fit"] == people["filler"].config["fit"]
    assert people["normal"].parents["base"].key == people["filler"].parents["base"].key
    assert people["distilled"].parents["lessons"].key == people["filler"].parents["lessons"].key
    assert people["normal"].parents["lessons"].key != people["distilled"].parents["lessons"].key


def test_students_come_in_the_order_in_which_others_wait_for_them() -> None:
    names = [stage.name for stage in plan("abacus") if stage.stage == "student"]
    assert names == ["latent", "distilled", "again", "normal", "filler"]


def test_a_further_task_is_asked_of_every_student_and_retrains_none() -> None:
    alone, further = plan("abacus"), plan("abacus", "test_on=[{name: abacus, seed: 5}]")
    assert {s.key for s in alone if s.stage == "student"} == {s.key for s in further if s.stage == "student"}
    asked = [s for s in further if s.name.endswith(" on abacus")]
    assert len(asked) == len([s for s in alone if s.stage == "predictions" and not s.name.endswith(" on copies")])
    assert {s.parents["problems"].name for s in asked} == {"problems abacus"}
    (gate,) = (s for s in further if s.stage == "contamination")
    assert set(gate.parents) == {"problems", "problems abacus"}


def test_a_task_that_only_tests_is_named_under_test_on(tmp_path: Path) -> None:
    (tmp_path / "ood_mawps.jsonl").write_text("{}\n")
    stages = plan("abacus", "test_on=[{name: mawps}]", f"data={tmp_path}")
    assert "problems mawps" in {stage.name for stage in stages}
    for task in ("mawps", "questions"):
        with pytest.raises(ConfigError, match=f"abacus: task: {task} only tests: name it under test_on"):
            plan("abacus", f"task={{name: {task}}}", f"data={tmp_path}")


def test_every_student_is_asked_further_where_the_recipe_wants_it() -> None:
    stages = {s.name: s for s in plan("abacus", "faithfulness=null")}
    people = ("base", "normal", "distilled", "filler", "latent")
    assert {name for name in stages if name.startswith("cost")} == {f"cost {name}" for name in people}
    assert not any(name.startswith("faithfulness") for name in stages)
    assert set(stages["memorising"].parents) == {
        "problems", "copies", *people, *(f"{name} on copies" for name in people),
    }  # fmt: skip
    assert {"cost normal", "memorising"} <= set(stages["report"].parents)
    assert not any(s.name.startswith("faithfulness twin") for s in plan("abacus-full"))


def test_a_reader_of_words_is_taught_where_it_is_asked_for() -> None:
    known = {"injection", "question only", "output only"}
    for given, wanted in (("oracle.text=true", {*known, "text"}), ("oracle.text=false", known)):
        stages = {s.name: s for s in plan("abacus", given)}
        assert {s.removeprefix("reader latent ") for s in stages if s.startswith("reader ")} == wanted
        assert set(stages["oracle latent"].parents) == {"traces", *(f"reader {name}" for name in wanted)}
        assert set(stages["oracle latent"].config["arms"]) == wanted


def test_a_local_teacher_stands_beside_the_students(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    local = f"teacher={{name: local, folder: {tmp_path}}}"
    stages = {s.name: s for s in plan("abacus", local)}
    assert stages["teacher"].config["style"] == "plain"
    assert stages["cost teacher"].parents["predictions"] is stages["predictions teacher"]
    assert stages["scores"].config["students"]["teacher"] == ["teacher", 0]
    assert "teacher" not in {s.name for s in plan("abacus", local, "cost=null")}
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    assert {s.name: s for s in plan("abacus", local)}["teacher"].config["style"] == "chat"


def test_what_changes_no_result_changes_no_key() -> None:
    one, two = plan("abacus"), plan("abacus", "settings.device=cpu", "settings.checkpoint_seconds=5")
    assert [s.key for s in one] == [s.key for s in two]
    assert plan("abacus", "fit.updates=7")[-1].key != one[-1].key


def test_a_changed_data_file_changes_the_key(tmp_path: Path) -> None:
    keys = []
    for content in ("{}\n", "{} \n"):
        for name in ("svamp_train.jsonl", "svamp_test.jsonl", "teacher_cot.jsonl"):
            (tmp_path / name).write_text(content)
        keys.append(plan("svamp-recorded", f"data={tmp_path}")[0].key)
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("abacuss",), UsageError, "did you mean 'abacus'"),
        (("abacus", "task.name=abacis"), ConfigError, "did you mean 'abacus'"),
        (("abacus", "teacher.name=work"), ConfigError, "did you mean 'worked'"),
        (("abacus", "lenses.weight={}"), ConfigError, "did you mean 'weights'"),
        (("abacus", "fit.update=3"), ConfigError, "did you mean 'fit.updates'"),
        (("abacus", "fit.updates=0"), ConfigError, "fit.updates: Input should be greater than or equal to 1, given 0"),
        (("abacus", "fit.updates=many"), ConfigError, 'fit.updates: Input should be a valid integer, given "many"'),
        (("abacus", "students.twin={variant: normal, twin_of: norml}"), ConfigError, "did you mean 'normal'"),
        (("abacus", "seeds=[1, 0, 1]"), ConfigError, "seeds: a seed stands twice"),
        (("abacus", "settings.device=tpu"), ConfigError, "settings.device: String should match pattern"),
        (("abacus", "task.steps=true"), ConfigError, "steps"),
        (("abacus", "base.scratch.width=100"), ConfigError, "base.scratch: width 100 must be a multiple"),
        (
            ("abacus", "students={../up: {variant: normal}}"),
            ConfigError,
            "students.../up: this name is taken, or holds",
        ),
        (("abacus", "students={base: {variant: normal}}"), ConfigError, "students.base: this name is taken"),
        (("svamp-recorded", "data=/nowhere"), DataError, "STILLROOM_DATA"),
        (("abacus", "test_on=[{name: abacis}]"), ConfigError, "test_on.name: unknown test_on 'abacis': did you mean"),
        (("abacus", "test_on=[{name: abacus}, {name: abacus}]"), ConfigError, "'abacus' stands 2 times"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(arguments, error, words) -> None:
    with pytest.raises(error) as caught:
        plan(*arguments)
    assert words in str(caught.value)


def test_until_stops_at_a_stage_and_refuses_an_unknown_one() -> None:
    assert {s.stage for s in upto(plan("abacus"), "rationales")} == {"problems", "contamination", "rationales"}
    with pytest.raises(UsageError, match="did you mean 'student'"):
        upto(plan("abacus"), "students")


@pytest.mark.parametrize("until", STAGES)
def test_no_stage_of_a_plan_that_stops_lacks_a_parent(until: str) -> None:
    for whole in (plan("abacus-small", "sweep={students.filler.pauses: [2, 3]}"), plan("abacus-full")):
        stages = upto(whole, until)
        kept = {(stage.stage, stage.key) for stage in stages}
        assert all((p.stage, p.key) in kept for stage in stages for p in stage.parents.values())
        later = STAGES[STAGES.index(until) + 1 :]
        assert [s.name for s in whole if s not in stages and s.stage not in later] in ([], ["overview"])


def test_the_schema_knows_tasks_teachers_and_lenses() -> None:
    text = str(schema())
    for name in ("AbacusConfig", "RecordedConfig", "LogitLensConfig", "held_out_pair"):
        assert name in text


def test_a_small_run_holds_every_stage_and_its_findings_have_nulls(small_store: Path) -> None:
    store = Store(small_store)
    assert {m.stage for m in store.manifests()} == set(STAGES) - {
        "comparison",
        "crosscoder",
        "sizes",
    }  # those have tests of their own
    report = next(m for m in store.manifests() if m.stage == "report")
    folder = store.folder("report", report.key)
    rows = pq.read_table(folder / "findings.parquet").to_pylist()
    assert {row["lens"] for row in rows} == {"weights", "logit_lens"}
    assert all(row["n"] > 0 and row["low"] <= row["value"] <= row["high"] and row["nulls"] for row in rows)
    page = (folder / "report.html").read_text()
    assert "<script src" not in page
    before, library, rest = page.partition('<script type="text/plain" id="plotly">')
    assert library
    assert "https://cdn" not in before + rest.partition("</script>")[2]


def test_a_second_run_in_another_store_gives_the_same_bytes(small_store: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "STILLROOM_STORE": str(tmp_path)}
    call = [sys.executable, "-m", "stillroom", "run", "abacus-small", "settings.device=cpu"]
    subprocess.run(call, env=environment, check=True, capture_output=True)
    first, second = (
        {
            p.relative_to(root): p.read_bytes()
            for p in root.rglob("*")
            if p.is_file() and p.name not in ("manifest.json", ".lock")
        }
        for root in (small_store, tmp_path)
    )
    assert first == second


def test_a_sweep_is_an_experiment_a_cell_and_one_comparison(tmp_path: Path) -> None:
    few = ["base.fit.updates=3", "lenses={}", "students={normal: {variant: normal}}", "settings.device=cpu"]
    cells = load_recipe("abacus-small", ["sweep={fit.updates: [2, 3]}", *few])
    assert list(cells) == ["updates=2", "updates=3"]
    stages = pipeline.plan("abacus-small", cells)
    assert sum(stage.stage == "base" for stage in stages) == 1  # what the cells share is made once
    store = Store(tmp_path)
    page = pipeline.run(stages, store, cells["updates=2"].settings)
    made = [m.name for m in store.manifests()]
    assert {"normal [updates=2]", "normal [updates=3]", "report [updates=2]", "report [updates=3]", "base"} <= set(made)
    (folder,) = (store.folder(m.stage, m.key) for m in store.manifests() if m.stage == "comparison")
    found = read_lines(folder / "comparisons.jsonl", Comparison)
    assert {(c.a, c.b) for c in found} == {("normal [updates=2]", "normal [updates=3]")}  # one base, no pair
    assert all(c.holm is not None and c.holm >= c.p for c in found)
    told = (page / "report.html").read_text()
    assert "normal [updates=3]" in told
    assert "p (Holm)" in told
    assert {"grid.csv", "grid.tex", "grid.xlsx", "effects.csv"} <= {path.name for path in page.iterdir()}
    rows = [(row.student, row.rest) for row in read_lines(folder / "grid.jsonl", GridRow)]
    assert rows == [("base", ""), ("normal", "updates=2"), ("normal", "updates=3")]


def recorded(folder: Path) -> None:
    for name in ("svamp_train.jsonl", "svamp_test.jsonl", "teacher_cot.jsonl"):
        (folder / name).write_text("{}\n")


def test_a_grid_of_levels_formats_and_sizes_shares_bases_and_rationales(tmp_path: Path) -> None:
    recorded(tmp_path)
    stages = plan("granularity-svamp", f"data={tmp_path}")
    count = Counter(stage.stage for stage in stages)
    assert (count["student"], count["base"], count["primer"], count["problems"]) == (18, 2, 1, 1)
    assert count["rationales"] == count["kept"] == 9  # six levels and three more formats; the base's is level 3
    assert count["predictions"] == 20
    names = {stage.name for stage in stages}
    assert {"base [scratch=small]", "base [scratch=large]", "rationales [granularity=6]"} <= names
    (compared,) = [stage for stage in stages if stage.stage == "comparison"]
    arms = [member["arm"] for member in compared.config["members"]]
    assert [arm for arm in arms if arm["student"] == "base"] == [
        {"student": "base", "teacher": "", "level": None, "format": "", "base": size, "rest": ""}
        for size in ("small", "large")
    ]
    assert {arm["format"] for arm in arms if arm["level"] == 3} == {
        "plain", "least-to-most", "rephrase-and-respond", "symbolic",
    }  # fmt: skip


def test_combinations_that_come_to_the_same_experiment_are_one(tmp_path: Path) -> None:
    recorded(tmp_path)
    grids = "sweep=[{teacher.granularity: [1, 6]}, {teacher.format: [plain], teacher.granularity: [6]}]"
    stages = plan("svamp-sweep", f"data={tmp_path}", grids)
    assert sum(stage.stage == "student" for stage in stages) == 2


def test_the_teacher_of_the_base_needs_a_tokenizer_for_any_word() -> None:
    with pytest.raises(ConfigError, match="base: `teacher` is for a base from scratch"):
        plan("abacus-small", "base.teacher={name: worked}")


def test_a_sweep_over_nothing_and_over_an_unknown_field_is_refused() -> None:
    with pytest.raises(ConfigError, match="sweep: a field without a value"):
        load_recipe("abacus-small", ["sweep={fit.updates: []}"])
    with pytest.raises(
        ConfigError, match=r"abacus-small \[update=3\]: unknown key 'fit.update': did you mean 'fit.updates'"
    ):
        load_recipe("abacus-small", ["sweep={fit.update: [3]}"])


def test_a_student_learns_from_another_of_the_recipe_and_a_ring_is_refused() -> None:
    stages = plan("abacus-small", "students.pupil={variant: distilled, gkd: {teacher: normal}}")
    people = {s.name: s for s in stages if s.stage == "student"}
    assert people["pupil"].parents["teacher"] is people["normal"]
    assert [s.name for s in stages].index("normal") < [s.name for s in stages].index("pupil")
    ring = ["students.a={variant: normal, gkd: {teacher: b}}", "students.b={variant: normal, gkd: {teacher: a}}"]
    with pytest.raises(ConfigError, match=r"students.a.gkd.teacher: a ← b ← a is a ring"):
        plan("abacus-small", *ring)


def test_a_pretrained_base_brings_the_founding_settings_unless_they_are_given() -> None:
    def fit(*overrides: str) -> dict[str, object]:
        stages = plan("abacus-small", "base={pretrained: {source: org/model}}", "lenses={}", *overrides)
        assert "primer" not in {stage.stage for stage in stages}
        return next(s.config["fit"] for s in stages if s.name == "normal")

    full, lora = fit("fit={}"), fit("fit={}", "adapter={name: lora}")
    assert (full["learning_rate"], full["schedule"], full["epochs"], full["batch_size"]) == (5e-5, "cosine", 3.0, 64)
    assert lora["learning_rate"] == 2e-4
    assert fit("fit={updates: 7, learning_rate: 1e-3}")["epochs"] is None
    assert fit("fit={updates: 7, learning_rate: 1e-3}")["learning_rate"] == 1e-3


def test_a_pretrained_base_is_opened_before_its_teacher_is_asked() -> None:
    made = plan("abacus-small", "base={pretrained: {source: ./none}}", "lenses={}", "seeds=[0, 1]")
    kinds = [stage.stage for stage in made]
    assert kinds.index("base") < kinds.index("rationales")
    assert "base" not in {stage.stage for stage in upto(made, "kept")}
    kinds = [stage.stage for stage in plan("abacus-small")]
    assert kinds.index("base") > kinds.index("rationales")  # from scratch it learns its language from them


def test_a_file_whose_name_no_disk_takes_is_told_as_absent() -> None:
    cells = load_recipe("abacus-small", [f"teacher={{name: recorded, dataset: t, file: {'x' * 5000}}}"])
    with pytest.raises(DataError, match="x…: no such file") as caught:
        pipeline.plan("abacus-small", cells)
    assert len(str(caught.value)) < 1000
