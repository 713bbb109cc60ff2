"""A recipe becomes a plan: stages with their configs and parents, made before anything runs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from stillroom import curriculum, evaluation, report
from stillroom.errors import ConfigError, unknown
from stillroom.lenses.subjects import BASE
from stillroom.pipeline.looking import Looking
from stillroom.pipeline.people import People, pretrained
from stillroom.pipeline.schooling import Schooling
from stillroom.pipeline.scrutiny import MEASURES, TEACHER, local_teacher, scrutiny
from stillroom.pipeline.staging import choose, staged
from stillroom.recipes import Recipe, Variant
from stillroom.store import Stage
from stillroom.tasks import TASKS

STAGES = (
    "problems", "contamination", "rationales", "kept", "compliance", "lessons", "primer", "base", "student", "copies",
    "predictions", "scores", "faithfulness", "cost", "memorising", "lens", "crosscoder", "traces", "reader", "oracle",
    "report", "comparison", "sizes",
)  # fmt: skip
"""All kinds of stages in the order in which `--until` goes."""


@dataclass(frozen=True)
class Planner:
    """Builds the stages of one recipe; each is made once and shared by all that need it."""

    where: str
    recipe: Recipe

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
        school = Schooling(where, recipe)
        problems = school.problems("problems", task, task_config)
        tests = dict(school.tests())
        gate = school.gate(task_config.name, problems, tests)
        taught = school.taught("", recipe.teacher, problems)
        first = taught
        if recipe.base.teacher is not None:
            first = school.taught(" of the base", recipe.base.teacher, problems)
        made = {stage.key: stage for stage in (*first, *taught)}  # the base's own teacher may be the recipe's
        obeyed = list(school.obeyed(made.values()))
        experiment = list(self._experiment(school, problems, taught[-1], first[-1], tests, gate, obeyed))
        # a model that is not there, or may not be had, is told before a teacher is paid
        opened = [stage for stage in experiment if stage.stage == "base" and not stage.parents]
        rest = [stage for stage in experiment if stage.stage != "base" or stage.parents]
        return [problems, *tests.values(), gate, *opened, *made.values(), *obeyed, *rest]

    def _experiment(
        self,
        school: Schooling,
        problems: Stage,
        kept: Stage,
        first: Stage,
        tests: Mapping[str, Stage],
        gate: Stage,
        obeyed: Sequence[Stage],
    ) -> Iterator[Stage]:
        recipe = self.recipe
        variants: list[Variant] = sorted({"normal", *(entry.variant for entry in recipe.students.values())})
        lessons: dict[str, Stage] = {variant: school.lessons("", problems, kept, variant) for variant in variants}
        yield from lessons.values()
        primer, worked = None, lessons["normal"]
        if recipe.base.pretrained is None:
            if first.key != kept.key:
                worked = school.lessons(" of the base", problems, first, "normal")
                yield worked
            run = partial(curriculum.make_primer, recipe.base.primer)
            taught = {"problems": problems, "rationales": first}
            primer = staged("primer", "primer", curriculum.VERSION, recipe.base.primer, taught, run)
            yield primer
        answered: dict[tuple[str, int], Stage] = {}
        further: dict[str, Stage] = {}
        trained: dict[str, Stage] = {}
        looked: dict[str, Stage] = {}
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
            for role, stage in Looking(self.where, recipe, self.label).all(seed, people, problems):
                yield stage
                looked |= {role: stage} if role else {}
        scores = self._scores(problems, answered, tests, further)
        yield scores
        for role, stage in self._scrutiny(school, problems, asked, answered):
            yield stage
            looked |= {role: stage} if role else {}
        yield self._report(problems, gate, scores, trained, looked, obeyed)

    def _longest_first(self, people: Mapping[str, Stage]) -> list[Stage]:
        """The base, students that are taught by a method, then twins and their originals, for which crosscoders wait:
        on a cluster the others are taught meanwhile."""
        entries = self.recipe.students
        twins = {name for twin, entry in entries.items() if entry.twin_of for name in (twin, entry.twin_of)}
        order = {name: 1 if entry.methods else 2 if name in twins else 3 for name, entry in entries.items()}
        return [people[name] for name in sorted(people, key=lambda name: order.get(name, 0))]

    def label(self, name: str, seed: int) -> str:
        return name if len(self.recipe.seeds) == 1 or name == TEACHER else f"{name}@{seed}"

    def _predictions(self, label: str, student: Stage, problems: Stage, config: evaluation.EvaluateConfig) -> Stage:
        parents = {"student": student, "problems": problems}
        run = partial(evaluation.make_predictions, config)
        return staged("predictions", f"predictions {label}", evaluation.PREDICTIONS_VERSION, config, parents, run)

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
        return staged("scores", "scores", evaluation.SCORES_VERSION, config, parents, run)

    def _scrutiny(
        self, school: Schooling, problems: Stage, asked: Mapping[str, Stage], answered: Mapping[tuple[str, int], Stage]
    ) -> Iterator[tuple[str, Stage]]:
        predictions = {self.label(name, seed): stage for (name, seed), stage in answered.items()}
        return scrutiny(self.recipe, school.data, school.checksums, asked, predictions, problems, self._predictions)

    def _report(
        self,
        problems: Stage,
        gate: Stage,
        scores: Stage,
        trained: Mapping[str, Stage],
        looked: Mapping[str, Stage],
        obeyed: Sequence[Stage],
    ) -> Stage:
        def named(kind: str) -> tuple[str, ...]:
            return tuple(role.removeprefix(f"{kind} ") for role, stage in looked.items() if stage.stage == kind)

        config = report.ReportConfig(
            recipe=self.where,
            resolved=self.recipe.model_dump(mode="json", exclude={"settings", "data", "sweep"}),
            lenses=named("lens"),
            students=tuple(trained),
            measured=tuple(role for role, stage in looked.items() if stage.stage in MEASURES),
            crosscoders=named("crosscoder"),
            oracles=named("oracle"),
            teachers=tuple(stage.name for stage in obeyed),
        )
        parents = {"problems": problems, "contamination": gate, "scores": scores, **trained, **looked}
        parents |= {stage.name: stage for stage in obeyed}
        parents = dict(sorted(parents.items(), key=lambda parent: STAGES.index(parent[1].stage)))
        return staged("report", "report", report.VERSION, config, parents, partial(report.make_report, config))
