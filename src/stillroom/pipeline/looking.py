"""What looks inside: the stages of lenses, crosscoders and the oracle, for one seed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from stillroom import crosscoder, lenses, oracle
from stillroom.errors import ConfigError, unknown
from stillroom.lenses import LENSES
from stillroom.pipeline.staging import choose, staged
from stillroom.recipes import Recipe
from stillroom.store import Stage


@dataclass(frozen=True)
class Looking:
    where: str
    recipe: Recipe
    label: Callable[[str, int], str]
    """A stage's name in the plan, from name and seed."""

    def all(self, seed: int, people: Mapping[str, Stage], problems: Stage) -> Iterator[tuple[str, Stage]]:
        """The stages by the role that the report gives them (none for what only leads to one)."""
        for name in self.recipe.lenses:
            yield f"lens {self.label(name, seed)}", self._lens(name, seed, people, problems)
        for pair in self.recipe.crosscoder.pairs if self.recipe.crosscoder else ():
            name = self.label(" → ".join(pair), seed)
            yield f"crosscoder {name}", self._crosscoder(name, pair, seed, people, problems)
        for name, entry in self.recipe.students.items():
            if entry.thoughts and entry.twin_of is None:
                for stage in self._oracle(self.label(name, seed), seed, people[name], problems):
                    yield stage.name if stage.stage == "oracle" else "", stage

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
        return staged("lens", f"lens {self.label(name, seed)}", lens.version, config, parents, run)

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
        return staged("crosscoder", f"crosscoder {name}", crosscoder.VERSION, config, parents, run)

    def _oracle(self, label: str, seed: int, student: Stage, problems: Stage) -> Iterator[Stage]:
        """One student's traces, the readers of all arms, and what they know."""
        entry = self.recipe.oracle
        if entry is None:
            return
        parents = {"student": student, "problems": problems}
        run = partial(oracle.make_traces, entry.traces)
        traces = staged("traces", f"traces {label}", oracle.TRACES_VERSION, entry.traces, parents, run)
        yield traces
        fit = entry.reader.fit.model_copy(update={"seed": entry.reader.fit.seed + seed})
        reader = entry.reader.model_copy(update={"fit": fit})
        readers: dict[str, Stage] = {}
        arms = tuple(name for name in oracle.ARMS if entry.text or name != oracle.TEXT)
        for name in arms:
            config = oracle.ArmConfig(arm=name, reader=reader, questions=entry.questions)
            run = partial(oracle.make_reader, config)
            readers[f"reader {name}"] = staged(
                "reader", f"reader {label} {name}", oracle.READER_VERSION, config, {"traces": traces}, run
            )
        yield from readers.values()
        last = oracle.OracleConfig(arms=arms, reader=reader, questions=entry.questions)
        parents = {"traces": traces, **readers}
        run = partial(oracle.make_oracle, last)
        yield staged("oracle", f"oracle {label}", oracle.VERSION, last, parents, run)
