"""The table of benchmarks: where each one's files lie, how its rows are read, and where the model hub holds it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from stillroom.records import Problem
from stillroom.tasks.benchmarks import hub, readers
from stillroom.tasks.benchmarks.hub import Hub
from stillroom.tasks.benchmarks.notes import Notes
from stillroom.tasks.benchmarks.rows import Row

MATH_SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip


class Benchmark(NamedTuple):
    about: str
    read: Callable[[Row, Notes], Problem]
    fields: tuple[str, ...]
    """What every row must have."""
    study: Mapping[str, str]
    """From split to file, as in the granularity study; a benchmark without `train` only tests."""
    hub: Hub
    identity: str = ""
    """The field that names a problem, where rows have it; else the id is made of task, split and row number."""
    also: Mapping[str, str] = {}
    """Other names under which somebody may hold the hub's splits, by split."""

    def files(self, name: str, split: str) -> dict[str, str]:
        """From split to file name. The hub's splits lie in files of their own."""
        return dict(self.study) if split == "study" else {ours: official(name, ours) for ours in self.hub.splits}


def official(name: str, split: str) -> str:
    return f"{name}_official_{split}.jsonl"


def pair(name: str, test: str = "") -> dict[str, str]:
    return {"train": f"{name}_train.jsonl", "test": test or f"{name}_test.jsonl"}


TESTS = {"test": ("test",)}
TRAINS_AND_TESTS = {"train": ("train",), "test": ("test",)}
ALL = {"train": ("train",), "validation": ("validation",), "test": ("test",)}

BENCHMARKS: dict[str, Benchmark] = {
    "gsm8k": Benchmark(
        "GSM8K (Cobbe et al. 2021): grade-school word problems with worked solutions.",
        readers.gsm8k, ("question", "answer"), pair("gsm8k"), Hub("openai/gsm8k", TRAINS_AND_TESTS, ("main",)),
    ),
    "svamp": Benchmark(
        "SVAMP (Patel et al. 2021): one- and two-step word problems. The test split shares story bodies with the "
        "training split, numbers changed: it is not a clean test of generalisation.",
        readers.svamp, ("ID", "Body", "Question", "Equation", "Answer"), pair("svamp"),
        Hub("ChilleD/SVAMP", TRAINS_AND_TESTS), "ID",
    ),
    "aqua": Benchmark(
        "AQuA-RAT (Ling et al. 2017): algebra with five options and rationales from a forum.",
        readers.aqua, ("question", "options", "rationale", "correct"), pair("aqua"),
        Hub("deepmind/aqua_rat", ALL, ("raw",)),
    ),
    "math": Benchmark(
        "MATH (Hendrycks et al. 2021): competition mathematics in LaTeX; the study trains on four of its subjects and "
        "tests on MATH-500.",
        readers.mathematics, ("problem", "solution"), pair("math", "math500_test.jsonl"),
        Hub("EleutherAI/hendrycks_math", TRAINS_AND_TESTS, MATH_SUBJECTS), "id",
    ),
    "csqa": Benchmark(
        "CommonsenseQA (Talmor et al. 2019). The official test answers are hidden: its development set is `test` here.",
        readers.csqa, ("answerKey", "id", "question"), pair("csqa", "csqa_dev.jsonl"),
        Hub("tau/commonsense_qa", {"train": ("train",), "test": ("validation",)}, convert=hub.csqa), "id",
    ),
    "openbookqa": Benchmark(
        "OpenBookQA (Mihaylov et al. 2018): elementary science with four options.",
        readers.openbookqa, ("question_stem", "choices", "answerKey"), pair("openbookqa"),
        Hub("allenai/openbookqa", ALL, ("main",), convert=hub.openbookqa), "id",
    ),
    "strategyqa": Benchmark(
        "StrategyQA (Geva et al. 2021): yes or no by several hops; the supporting facts are the solution.",
        readers.strategyqa, ("question", "answer", "facts"), pair("strategyqa"),
        Hub("ChilleD/StrategyQA", TRAINS_AND_TESTS),
    ),
    "gsm8k_aug": Benchmark(
        "GSM8K-Aug (Deng et al. 2023): machine-made problems with equations as steps. Its validation questions are "
        "GSM8K training questions, and its test split is GSM8K's.",
        readers.gsm8k_aug, ("question", "steps", "answer"),
        {"train": "gsm8k_aug_train_7500.jsonl", "validation": "gsm8k_aug_valid.jsonl", "test": "gsm8k_aug_test.jsonl"},
        Hub("whynlp/gsm8k-aug", ALL), also={"train": "train.txt", "validation": "valid.txt", "test": "test.txt"},
    ),
    "gsm_hard": Benchmark(
        "GSM-Hard (Gao et al. 2023): GSM8K's test questions with large numbers; a quarter of them are unchanged.",
        readers.target, ("input", "target"), {"test": "ood_gsm_hard.jsonl"},
        Hub("reasoning-machines/gsm-hard", {"test": ("train",)}),
    ),
    "multiarith": Benchmark(
        "MultiArith (Roy and Roth 2015): multi-step arithmetic, whole.",
        readers.multiarith, ("sQuestion", "lSolutions"), {"test": "ood_multiarith.jsonl"},
        Hub("ChilleD/MultiArith", {"test": ("train", "test")}, convert=hub.multiarith),
    ),
    "asdiv": Benchmark(
        "ASDiv (Miao et al. 2020): word problems of many patterns, a few of them not numeric.",
        readers.asdiv, ("body", "question", "answer"), {"test": "ood_asdiv.jsonl"},
        Hub("EleutherAI/asdiv", {"test": ("validation",)}, ("asdiv",)),
    ),
    "mawps": Benchmark(
        "MAWPS (Koncel-Kedziorski et al. 2016). It holds most of MultiArith: do not average the two.",
        readers.target, ("input", "target"), {"test": "ood_mawps.jsonl"},
        Hub("MU-NLPC/Calc-mawps", TESTS, convert=hub.mawps),
    ),
    "math500": Benchmark(
        "MATH-500 (Lightman et al. 2023): 500 test problems of MATH, all seven subjects.",
        readers.mathematics, ("problem", "solution", "answer"), {"test": "math500_test.jsonl"},
        Hub("HuggingFaceH4/MATH-500", TESTS),
    ),
}  # fmt: skip
