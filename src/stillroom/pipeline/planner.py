"""A recipe becomes a plan: stages with their configs and parents, made before anything runs."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from stillroom import crosscoder, curriculum, evaluation, lenses, oracle, report, tasks, teachers
from stillroom.config import Config
from stillroom.curriculum import compliance, gates
from stillroom.errors import ConfigError, DataError, shown, unknown
from stillroom.files import sha256
from stillroom.lenses import LENSES
from stillroom.lenses.subjects import BASE
from stillroom.pipeline.people import People, pretrained
from stillroom.pipeline.scrutiny import TEACHER, local_teacher, scrutiny
from stillroom.recipes import Recipe, Variant
from stillroom.store import Stage, Workplace
from stillroom.tasks import TASKS, Task, contamination
from stillroom.tasks.contamination import PROBLEMS, ContaminationConfig
from stillroom.teachers import TEACHERS

STAGES = (
    "problems", "contamination", "rationales", "kept", "compliance", "lessons", "primer", "base", "student", "copies",
    "predictions", "scores", "faithfulness", "cost", "memorising", "lens", "crosscoder", "traces", "reader", "oracle",
    "report", "comparison", "sizes",
)  # fmt: skip
"""All kinds of stages in the order in which `--until` goes."""


def choose(table: Mapping[str, Any], data: dict[str, Any], what: str, where: str) -> tuple[Any, Any]:
    """The row of a table that `data["name"]` selects, and its config. Raises `ConfigError` for an unknown name."""
    name = str(data.get("name"))
    if name not in table:
        raise ConfigError(f"{where}: {what}.name: {unknown(what, name, table)}")
    return table[name], table[name].config.parse(data, f"{where}: {what}")


def checksum(path: Path) -> str:
    """The SHA-256 of a data file, read once for all cells of a sweep."""
    told = path.stat()
    return _checksum(path, told.st_mtime_ns, told.st_size)


@lru_cache
def _checksum(path: Path, changed: int, size: int) -> str:
    return sha256(path)


@dataclass(frozen=True)
class Planner:
    """Builds the stages of one recipe; each is made once and shared by all that need it."""

    where: str
    recipe: Recipe

    @property
    def data(self) -> Path:
        return Path(self.recipe.data or os.environ.get("STILLROOM_DATA") or "data")

    def stage(
        self,
        stage: str,
        name: str,
        version: int,
        config: Config,
        parents: Mapping[str, Stage],
        run: Callable[[Workplace], None],
        files: tuple[str, ...] = (),
        stamp: Mapping[str, Any] = {},
    ) -> Stage:
        settled = {**config.model_dump(mode="json"), **self.checksums(files), **stamp}
        return Stage(stage, name, version, settled, dict(parents), run)

    def checksums(self, files: tuple[str, ...]) -> dict[str, Any]:
        for name in files:
            if not os.path.isfile(self.data / name):  # noqa: PTH113 (a name too long for the disk is no error there)
                raise DataError(tasks.benchmarks.absent(self.data / shown(name)))
        return {"files": {name: checksum(self.data / name) for name in files}} if files else {}

    def plan(self) -> list[Stage]:
        """All stages in an order in which parents come first."""
        recipe, where = self.recipe, self.where
        task, task_config = choose(TASKS, recipe.task, "task", where)
        if not task.trains(task_config):
            why = f"{task_config.name} only tests: name it under test_on, and a task to train on here"
            raise ConfigError(f"{where}: task: {why}")
        for name, entry in recipe.students.items():
            if name in (BASE, TEACHER, "problems", "scores", evaluation.MAJORITY) or not re.fullmatch(
                r"[A-Za-z0-9][\w.-]*", name
            ):
                raise ConfigError(
                    f"{where}: students.{name}: this name is taken, or holds more than letters, digits, _ . and -"
                )
            if bool(entry.methods) != (entry.variant == "latent"):
                told = "`variant: latent` and one of codi, coconut and stepwise belong together"
                raise ConfigError(f"{where}: students.{name}: {told}")
            if entry.twin_of is not None and entry.twin_of not in recipe.students:
                raise ConfigError(
                    f"{where}: students.{name}.twin_of: {unknown('student', entry.twin_of, recipe.students)}"
                )
        problems = self._problems("problems", task, task_config)
        tests = dict(self._tests())
        gate = self._gate(task_config.name, problems, tests)
        taught = self._taught("", recipe.teacher, problems)
        first = taught
        if recipe.base.teacher is not None:
            first = self._taught(" of the base", recipe.base.teacher, problems)
        made = {stage.key: stage for stage in (*first, *taught)}  # the base's own teacher may be the recipe's
        obeyed = list(self._obeyed(made.values()))
        experiment = self._experiment(problems, taught[-1], first[-1], tests, gate, obeyed)
        return [problems, *tests.values(), gate, *made.values(), *obeyed, *experiment]

    def _taught(self, of: str, teacher: dict[str, Any], problems: Stage) -> list[Stage]:
        """What a teacher writes, and what of it students are shown."""
        row, config = choose(TEACHERS, teacher, f"{'base.' if of else ''}teacher", self.where)
        write = partial(teachers.make_rationales, row, config, self.data, limits=self.recipe.settings.teach)
        rationales = self.stage(
            "rationales", f"rationales{of}", teachers.VERSION, config, {"problems": problems}, write,
            row.files(config), row.stamp(config),
        )  # fmt: skip
        gate = self.recipe.gates
        parents = {"problems": problems, "rationales": rationales}
        return [
            rationales,
            self.stage("kept", f"kept{of}", gates.VERSION, gate, parents, partial(gates.make_kept, gate)),
        ]

    def _obeyed(self, taught: Iterable[Stage]) -> Iterator[Stage]:
        """What tells of each of these rationales whether their teacher obeyed."""
        config = compliance.ComplianceConfig()
        for stage in taught:
            if stage.stage == "rationales":
                name = stage.name.replace("rationales", "compliance")
                parents = {"problems": stage.parents["problems"], "rationales": stage}
                run = partial(compliance.make_compliance, config)
                yield self.stage("compliance", name, compliance.VERSION, config, parents, run)

    def _problems(self, name: str, task: Task, config: Config) -> Stage:
        make = partial(tasks.make_problems, task, config, self.data)
        return self.stage("problems", name, tasks.VERSION, config, {}, make, task.files(config))

    def _tests(self) -> Iterator[tuple[str, Stage]]:
        names = [str(entry.get("name")) for entry in self.recipe.test_on]
        for name, entry in zip(names, self.recipe.test_on, strict=True):
            if names.count(name) > 1:
                raise ConfigError(f"{self.where}: test_on: {name!r} stands {names.count(name)} times; name a task once")
            task, config = choose(TASKS, entry, "test_on", self.where)
            yield name, self._problems(f"problems {name}", task, config)

    def _gate(self, trained: str, problems: Stage, tests: Mapping[str, Stage]) -> Stage:
        roles = {PROBLEMS: trained, **{f"problems {name}": name for name in tests}}
        config = ContaminationConfig(allow=self.recipe.allow_overlap, tasks=roles)
        parents = {PROBLEMS: problems, **{f"problems {name}": stage for name, stage in tests.items()}}
        run = partial(contamination.make_overlaps, config)
        return self.stage("contamination", "contamination", contamination.VERSION, config, parents, run)

    def _lessons(self, of: str, problems: Stage, kept: Stage, variant: Variant) -> Stage:
        config = curriculum.LessonsConfig(variant=variant)
        taught = {"problems": problems, "rationales": kept}
        run = partial(curriculum.make_lessons, config)
        return self.stage("lessons", f"lessons {variant}{of}", curriculum.VERSION, config, taught, run)

    def _experiment(
        self,
        problems: Stage,
        kept: Stage,
        first: Stage,
        tests: Mapping[str, Stage],
        gate: Stage,
        obeyed: Sequence[Stage],
    ) -> Iterator[Stage]:
        recipe = self.recipe
        variants: list[Variant] = sorted({"normal", *(entry.variant for entry in recipe.students.values())})
        lessons: dict[str, Stage] = {variant: self._lessons("", problems, kept, variant) for variant in variants}
        yield from lessons.values()
        primer, worked = None, lessons["normal"]
        if recipe.base.pretrained is None:
            if first.key != kept.key:
                worked = self._lessons(" of the base", problems, first, "normal")
                yield worked
            run = partial(curriculum.make_primer, recipe.base.primer)
            taught = {"problems": problems, "rationales": first}
            primer = self.stage("primer", "primer", curriculum.VERSION, recipe.base.primer, taught, run)
            yield primer
        answered: dict[tuple[str, int], Stage] = {}
        further: dict[str, Stage] = {}
        looked: dict[str, Stage] = {}
        paired: dict[str, Stage] = {}
        trained: dict[str, Stage] = {}
        thinking: dict[str, Stage] = {}
        asked: dict[str, Stage] = {}
        if (teacher := local_teacher(recipe)) is not None:
            asked[TEACHER] = pretrained(TEACHER, teacher)
            answered[TEACHER, 0] = self._predictions(TEACHER, asked[TEACHER], problems, recipe.evaluate)
            yield from (asked[TEACHER], answered[TEACHER, 0])
        for seed in recipe.seeds:
            people = People(self.where, recipe, self.label).all(seed, problems, lessons, worked, primer)
            yield from self._longest_first(people)
            trained |= {self.label(name, seed): stage for name, stage in people.items()}
            for name, person in people.items():
                if name == BASE or recipe.students[name].twin_of is None:
                    label = self.label(name, seed)
                    asked[label] = person
                    answered[name, seed] = self._predictions(label, person, problems, recipe.evaluate)
                    yield answered[name, seed]
                    elsewhere = dict(self._elsewhere(name, seed, person, tests))
                    yield from elsewhere.values()
                    further |= elsewhere
            for name in recipe.lenses:
                looked[self.label(name, seed)] = self._lens(name, seed, people, problems)
                yield looked[self.label(name, seed)]
            for pair in recipe.crosscoder.pairs if recipe.crosscoder else ():
                name = self.label(" → ".join(pair), seed)
                paired[name] = self._crosscoder(name, pair, seed, people, problems)
                yield paired[name]
            for name, entry in recipe.students.items():
                if entry.thoughts and entry.twin_of is None:
                    asking = list(self._oracle(self.label(name, seed), seed, people[name], problems))
                    thinking |= {one.name.removeprefix("oracle "): one for one in asking if one.stage == "oracle"}
                    yield from asking
        scores = self._scores(problems, answered, tests, further)
        yield scores
        measured = list(self._scrutiny(problems, asked, answered))
        yield from (stage for _, stage in measured)
        told = {role: stage for role, stage in measured if role}
        yield self._report(problems, gate, scores, trained, looked, told, paired, thinking, obeyed)

    def _longest_first(self, people: Mapping[str, Stage]) -> list[Stage]:
        """The base, then students that think: on a cluster the others are taught meanwhile."""
        order = {name: 1 if entry.thoughts else 2 for name, entry in self.recipe.students.items()}
        return [people[name] for name in sorted(people, key=lambda name: order.get(name, 0))]

    def label(self, name: str, seed: int) -> str:
        return name if len(self.recipe.seeds) == 1 or name == TEACHER else f"{name}@{seed}"

    def _predictions(self, label: str, student: Stage, problems: Stage, config: evaluation.EvaluateConfig) -> Stage:
        parents = {"student": student, "problems": problems}
        run = partial(evaluation.make_predictions, config)
        return self.stage("predictions", f"predictions {label}", evaluation.PREDICTIONS_VERSION, config, parents, run)

    def _elsewhere(
        self, name: str, seed: int, student: Stage, tests: Mapping[str, Stage]
    ) -> Iterator[tuple[str, Stage]]:
        """What a student answers to the further tasks, by the role that `scores` gives it."""
        config = self.recipe.evaluate.model_copy(update={"train_sample": 0})
        for task, problems in tests.items():
            label = f"{self.label(name, seed)} on {task}"
            yield label, self._predictions(label, student, problems, config)

    def _scores(
        self,
        problems: Stage,
        answered: Mapping[tuple[str, int], Stage],
        tests: Mapping[str, Stage],
        further: Mapping[str, Stage],
    ) -> Stage:
        roles = {self.label(name, seed): (name, seed) for name, seed in answered}
        sample = self.recipe.evaluate.train_sample
        config = evaluation.ScoresConfig(students=roles, train_sample=sample, tests=tuple(tests))
        parents = {"problems": problems, **{self.label(name, seed): stage for (name, seed), stage in answered.items()}}
        parents |= {f"problems {name}": stage for name, stage in tests.items()} | dict(further)
        run = partial(evaluation.make_scores, config)
        return self.stage("scores", "scores", evaluation.SCORES_VERSION, config, parents, run)

    def _scrutiny(
        self, problems: Stage, asked: Mapping[str, Stage], answered: Mapping[tuple[str, int], Stage]
    ) -> Iterator[tuple[str, Stage]]:
        predictions = {self.label(name, seed): stage for (name, seed), stage in answered.items()}
        return scrutiny(self.recipe, self.data, self.checksums, asked, predictions, problems, self._predictions)

    def _oracle(self, label: str, seed: int, student: Stage, problems: Stage) -> Iterator[Stage]:
        """One student's traces, the readers of all arms, and what they know."""
        entry = self.recipe.oracle
        if entry is None:
            return
        parents = {"student": student, "problems": problems}
        run = partial(oracle.make_traces, entry.traces)
        traces = self.stage("traces", f"traces {label}", oracle.TRACES_VERSION, entry.traces, parents, run)
        yield traces
        fit = entry.reader.fit.model_copy(update={"seed": entry.reader.fit.seed + seed})
        reader = entry.reader.model_copy(update={"fit": fit})
        readers: dict[str, Stage] = {}
        arms = tuple(name for name in oracle.ARMS if entry.text or name != oracle.TEXT)
        for name in arms:
            config = oracle.ArmConfig(arm=name, reader=reader, questions=entry.questions)
            run = partial(oracle.make_reader, config)
            readers[f"reader {name}"] = self.stage(
                "reader", f"reader {label} {name}", oracle.READER_VERSION, config, {"traces": traces}, run
            )
        yield from readers.values()
        last = oracle.OracleConfig(arms=arms, reader=reader, questions=entry.questions)
        parents = {"traces": traces, **readers}
        run = partial(oracle.make_oracle, last)
        yield self.stage("oracle", f"oracle {label}", oracle.VERSION, last, parents, run)

    def _lens(self, name: str, seed: int, people: Mapping[str, Stage], problems: Stage) -> Stage:
        lens, settings = choose(LENSES, {"name": name, **self.recipe.lenses[name]}, "lens", self.where)
        twins = {twin: entry.twin_of for twin, entry in self.recipe.students.items() if entry.twin_of}
        config = lenses.LensConfig(
            lens=settings.model_dump(mode="json"),
            students={person: person for person in people},
            twins=twins,
            suffix=self.label("", seed),
            threads=self.recipe.evaluate.threads,
        )
        run = partial(lenses.make_findings, lens, settings, config)
        parents = {**people, "problems": problems}
        return self.stage("lens", f"lens {self.label(name, seed)}", lens.version, config, parents, run)

    def _crosscoder(
        self, name: str, pair: tuple[str, str], seed: int, people: Mapping[str, Stage], problems: Stage
    ) -> Stage:
        assert self.recipe.crosscoder is not None, "asked of recipes that have one"
        for person in pair:
            if person not in people:
                raise ConfigError(f"{self.where}: crosscoder.pairs: {unknown('student', person, people)}")
        reference, subject = pair
        twin = next((name for name, entry in self.recipe.students.items() if entry.twin_of == subject), None)
        config = crosscoder.StageConfig(
            reference=reference,
            subject=subject,
            suffix=self.label("", seed),
            twin=twin is not None,
            settings=self.recipe.crosscoder.model_copy(update={"pairs": ()}),
        )
        parents = {"reference": people[reference], "subject": people[subject], "problems": problems}
        if twin is not None:
            parents["twin"] = people[twin]
        run = partial(crosscoder.make_crosscoder, config)
        return self.stage("crosscoder", f"crosscoder {name}", crosscoder.VERSION, config, parents, run)

    def _report(
        self,
        problems: Stage,
        gate: Stage,
        scores: Stage,
        trained: Mapping[str, Stage],
        looked: Mapping[str, Stage],
        measured: Mapping[str, Stage],
        paired: Mapping[str, Stage],
        thinking: Mapping[str, Stage],
        obeyed: Sequence[Stage],
    ) -> Stage:
        resolved = self.recipe.model_dump(mode="json", exclude={"settings", "data", "sweep"})
        config = report.ReportConfig(
            recipe=self.where,
            resolved=resolved,
            lenses=tuple(looked),
            students=tuple(trained),
            measured=tuple(measured),
            crosscoders=tuple(paired),
            oracles=tuple(thinking),
            teachers=tuple(stage.name for stage in obeyed),
        )
        parents = {
            "problems": problems,
            "contamination": gate,
            "scores": scores,
            **trained,
            **{f"lens {name}": s for name, s in looked.items()},
            **measured,
            **{f"crosscoder {name}": s for name, s in paired.items()},
            **{f"oracle {name}": s for name, s in thinking.items()},
            **{s.name: s for s in obeyed},
        }
        parents = dict(sorted(parents.items(), key=lambda parent: STAGES.index(parent[1].stage)))
        return self.stage("report", "report", report.VERSION, config, parents, partial(report.make_report, config))
