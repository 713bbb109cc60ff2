"""Who learns: the stages of the base and of all students of a recipe, for one seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from stillroom import curriculum, students
from stillroom.errors import ConfigError
from stillroom.lenses.subjects import BASE
from stillroom.pipeline.staging import staged
from stillroom.recipes import Recipe
from stillroom.store import Stage
from stillroom.students.pretrained import Pretrained, contents, founding, make_pretrained, make_taught_elsewhere
from stillroom.training import FitConfig

SEED_OF_TWIN = 1000


@dataclass(frozen=True)
class People:
    where: str
    recipe: Recipe
    label: Callable[[str, int], str]
    """A person's name in the plan, from name and seed."""

    def all(
        self, seed: int, problems: Stage, lessons: Mapping[str, Stage], worked: Stage, primer: Stage | None
    ) -> dict[str, Stage]:
        """The base and all students by name, teachers before those that learn from their distribution."""
        people = {BASE: self.base(seed, worked, primer)}

        def build(name: str, asking: tuple[str, ...]) -> Stage:
            if name in asking:
                raise ConfigError(f"{self.where}: students.{name}.gkd.teacher: {' ← '.join([*asking, name])} is a ring")
            if name not in people:
                people[name] = self._student(
                    name, seed, people[BASE], problems, lessons, lambda n: build(n, (*asking, name))
                )
            return people[name]

        for name in self.recipe.students:
            build(name, ())
        return people

    def base(self, seed: int, worked: Stage, primer: Stage | None) -> Stage:
        entry = self.recipe.base
        if entry.pretrained is not None:
            return pretrained(self.label(BASE, seed), entry.pretrained)
        assert primer is not None, "what is built from scratch learns the primer"
        config = students.BaseConfig(scratch=entry.scratch, fit=_reseed(entry.fit, seed))
        parents = {"lessons": primer, "worked": worked}
        run = partial(students.make_base, config)
        return staged("base", self.label(BASE, seed), students.VERSION, config, parents, run)

    def _student(
        self,
        name: str,
        seed: int,
        base: Stage,
        problems: Stage,
        lessons: Mapping[str, Stage],
        teacher: Callable[[str], Stage],
    ) -> Stage:
        recipe, entry = self.recipe, self.recipe.students[name]
        if entry.pretrained is not None:
            run = partial(make_taught_elsewhere, entry.pretrained, entry.thoughts)
            stamp = {"thoughts": entry.thoughts, "contents": contents(entry.pretrained.source)}
            return staged("student", self.label(name, seed), students.VERSION, entry.pretrained, {}, run, stamp)
        fit = _reseed(recipe.fit, seed + (SEED_OF_TWIN if entry.twin_of else 0))
        stepwise = entry.variant == "step_by_step"
        terms = {curriculum.ANSWER: 1.0, curriculum.RATIONALE: entry.rationale_weight} if stepwise else {"ce": 1.0}
        settings = students.StudentConfig(
            pauses=entry.pauses,
            prefix=curriculum.TASKS[curriculum.ANSWER] if stepwise else "",
            terms=terms,
            gkd=entry.gkd,
            **{name: getattr(entry, name) for name in entry.methods},
            adapter=recipe.adapter,
            checkpointing=bool(recipe.base.pretrained and recipe.base.pretrained.checkpointing),
            fit=founding(fit, recipe.adapter.name) if recipe.base.pretrained else fit,
        )
        parents = {"base": base, "lessons": lessons[entry.variant], "problems": problems}
        if entry.gkd is not None:
            known = entry.gkd.teacher in recipe.students
            outside = Pretrained(source=entry.gkd.teacher)
            parents["teacher"] = teacher(entry.gkd.teacher) if known else pretrained("teacher", outside)
        run = partial(students.make_student, settings)
        return staged("student", self.label(name, seed), students.VERSION, settings, parents, run)


def _reseed(fit: FitConfig, seed: int) -> FitConfig:
    return fit.model_copy(update={"seed": fit.seed + seed})


def pretrained(label: str, config: Pretrained) -> Stage:
    """The stage of a model that was made elsewhere; its files' checksums belong to its key."""
    stamp = {"contents": contents(config.source)}
    return staged("base", label, students.VERSION, config, {}, partial(make_pretrained, config), stamp)
