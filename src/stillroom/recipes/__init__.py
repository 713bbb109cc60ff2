"""Recipes: one YAML file an experiment, and what may stand in it."""

import difflib
import importlib.util
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stillroom.config import Config
from stillroom.crosscoder import CrosscodersConfig
from stillroom.curriculum import PrimerConfig
from stillroom.curriculum.gates import GateConfig
from stillroom.errors import ConfigError, unknown
from stillroom.evaluation import EvaluateConfig
from stillroom.evaluation.cost import CostConfig
from stillroom.evaluation.faithfulness import FaithfulnessConfig
from stillroom.evaluation.memorising import MemorisingConfig
from stillroom.oracle import QuestionsConfig, ReaderConfig, TraceConfig
from stillroom.recipe_files import written
from stillroom.recipes.sweeps import Grid, grid_cells, labels_of
from stillroom.students.adapters import AdapterConfig
from stillroom.students.gkd import GkdConfig
from stillroom.students.methods import Methods
from stillroom.students.pretrained import Pretrained
from stillroom.students.scratch import ScratchConfig
from stillroom.teachers.limits import Limits
from stillroom.training import FitConfig

Variant = Literal["normal", "distilled", "latent", "step_by_step"]


class BaseEntry(Config):
    pretrained: Pretrained | None = None
    """A model to start from; where it is given, nothing is built from scratch and the primer is not learned."""
    teacher: dict[str, Any] | None = None
    """Whose rationales the base learns its language from, as under the recipe's own `teacher`, where that is another:
    students of all teachers, levels and formats of a sweep then start from one base."""
    scratch: ScratchConfig = ScratchConfig()
    primer: PrimerConfig = PrimerConfig()
    fit: FitConfig = FitConfig()

    @model_validator(mode="after")
    def _words_of_all_teachers(self) -> Self:
        if self.teacher is not None and (self.pretrained is not None or self.scratch.tokenizer == "word"):
            raise ValueError("`teacher` is for a base from scratch with `tokenizer: bpe`, which can write any word")
        return self


class StudentEntry(Methods):
    variant: Variant
    pauses: int = Field(0, ge=0)
    rationale_weight: float = Field(1.0, ge=0)
    """λ of distilling step-by-step: what the rationale's loss weighs beside the answer's."""
    gkd: GkdConfig | None = None
    """Learn from a teacher's distribution, token by token."""
    twin_of: str | None = None
    """The student from which this one differs by its seed alone: a null for lenses, left out of the comparisons."""
    pretrained: Pretrained | None = None
    """A student that was taught elsewhere: it is asked and looked into like the others and not trained; `variant` and
    the method say what it learned."""

    @model_validator(mode="after")
    def _not_taught_twice(self) -> Self:
        if self.pretrained and (self.pauses or self.gkd or self.twin_of):
            raise ValueError("`pretrained` is not trained here: pauses, gkd and twin_of do not go with it")
        return self


class OracleEntry(Config):
    """The readers of every student that thinks: what is traced, what is asked, and who reads."""

    traces: TraceConfig = TraceConfig()
    questions: QuestionsConfig = QuestionsConfig()
    reader: ReaderConfig = ReaderConfig()
    text: bool = True
    """Whether one more reader gets the trace in words: its texts are long, and an update takes ten times as long."""


class Settings(Config):
    """What changes no result and is therefore part of no key."""

    device: str = Field("auto", pattern=r"^(auto|cpu|mps|xpu|cuda)(:\d+)?$")
    """`auto` for the best there is, else `cpu`, `cuda`, `cuda:1`, `mps` or `xpu`."""
    checkpoint_seconds: float = Field(30.0, gt=0)
    shard: bool = False
    """Share the weights out over the processes of `torchrun` (FSDP), not only the batches."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    teach: Limits = Limits()
    """How fast and how dearly a teacher may be asked."""

    @field_validator("trackers")
    @classmethod
    def _installed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """accelerate leaves out a tracker that is not there: a long run would be followed nowhere."""
        if absent := [name for name in value if importlib.util.find_spec(name) is None]:
            raise ValueError(f"not installed: pip install {' '.join(absent)}")
        return value


class Recipe(Config):
    """One experiment. `task`, `teacher` and each lens are validated by the table row that their name selects."""

    task: dict[str, Any]
    teacher: dict[str, Any] = {"name": "worked"}
    gates: GateConfig = GateConfig()
    """Which of the teacher's rationales students are shown."""
    base: BaseEntry = BaseEntry()
    students: dict[str, StudentEntry] = Field(min_length=1)
    adapter: AdapterConfig = AdapterConfig()
    fit: FitConfig = FitConfig()
    """The same for all students: what they differ in is what they are shown."""
    evaluate: EvaluateConfig = EvaluateConfig()
    faithfulness: FaithfulnessConfig | None = None
    """Where given, the reasoning of every student is disturbed, to see whether its answer rests on it."""
    cost: CostConfig | None = None
    """Where given, what an answer costs stands beside how often it is right; a local teacher is asked too."""
    memorising: MemorisingConfig | None = None
    """Where given, training problems are asked with other numbers, and the nearest of them is a baseline."""
    lenses: dict[str, dict[str, Any]] = {"weights": {}, "logit_lens": {}}
    crosscoder: CrosscodersConfig | None = None
    """One dictionary for two of the people, for every pair; see docs/crosscoders.md."""
    oracle: OracleEntry | None = None
    """Ask the thoughts of students that think in words; left out, no thought is traced."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((0,), min_length=1)
    """Each seed trains a base and all students anew; results are told apart by `@seed`."""
    test_on: tuple[dict[str, Any], ...] = ()
    """Further tasks whose test splits all students are asked: generalisation beyond the task they were trained on."""
    allow_overlap: tuple[str, ...] = ()
    """Pairs of splits that may share problems, as the contamination gate names them: `svamp/train x mawps/test`."""
    sweep: Grid | tuple[Grid, ...] = {}
    """Fields, by their dotted names, and the values that each is to have, in a list or by names of your own: one
    experiment for every combination, and one comparison of them all. Several such grids in a list are put together."""
    data: str | None = None
    """The folder of data files; STILLROOM_DATA, then ./data, where it is not given."""
    settings: Settings = Settings()

    @field_validator("students", mode="before")
    @classmethod
    def _known(cls, students: Any) -> Any:
        """An override of a student that is misspelt makes a new one, which lacks its variant. Whatever else may be
        wrong with an entry is told of its own fields."""
        entries = students if isinstance(students, dict) else {}
        whole = [name for name, entry in entries.items() if isinstance(entry, dict) and "variant" in entry]
        for name in sorted(entries.keys() - whole):
            entry = entries[name]
            slip = isinstance(entry, dict) and entry.keys() <= StudentEntry.model_fields.keys()
            if slip and difflib.get_close_matches(name, whole, 1, 0.5):
                raise ValueError(f"{unknown('student', name, whole)}; a new one needs a `variant`")
        return students

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands twice: the second run would be the first again")
        return seeds


def load_recipe(name: str, assignments: list[str]) -> dict[str, Recipe]:
    """A recipe by its name or from a YAML file, with overrides applied.

    Returns one recipe for every cell of its sweep by what it differs in, the cell's label for every field of the sweep
    in place of the sweep; without a sweep, one recipe under the empty name.
    """
    data = written(name, assignments)
    whole = Recipe.parse(data, name)
    if not whole.sweep:
        return {"": whole}
    grids = whole.sweep if isinstance(whole.sweep, tuple) else (whole.sweep,)
    cells = {}
    for cell in grid_cells(data, grids, name):
        where = f"{name} [{cell.name}]"
        resolved = Recipe.parse({**cell.data, "sweep": {}}, where)
        labels = labels_of(resolved.model_dump(mode="json"), cell.labels, grids)
        cells[cell.name] = resolved.model_copy(update={"sweep": {field: [told] for field, told in labels.items()}})
    if not cells:
        raise ConfigError(f"{name}: sweep: a field without a value leaves no experiment to run")
    return cells
