"""The grader: verdicts a second in process and through `stillroom grade`, baits, and memory over many lines.

    .venv/bin/python benchmarks/grade.py [--quick]      (--quick: 120,000 lines for memory in place of 1,020,000)

The library for mathematics is timed once its processes have started; how long that takes stands in the last line. That
is JSON; the exit code is 0 when every figure holds its bar.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from figures import at_least, at_most, close, told_load

from stillroom.records import Kind
from stillroom.tasks import workers
from stillroom.tasks.answers import Question, grade, grade_all

WORKING = "She had {a} apples and bought {b} more, so {a} + {b} = {c}. Then she gave some of them to her two friends. "
BAITS: tuple[tuple[Kind, str], ...] = (
    ("math", "\\boxed{9^{9^{9^9}}}"),
    ("math", "\\boxed{" + "{" * 2**20),
    ("math", "\\boxed{" + "(" * 400 + "x" + ")" * 400 + "^{99}}"),
    ("math", "\\boxed{1000000!}"),
    ("math", "\\boxed{\\sum_{n=1}^{10^{9}} \\sin(n)}"),
    *((kind, bait) for kind in ("numeric", "choice", "boolean", "text", "math") for bait in (
        "9" * 2**20, "The answer is " * 50_000, "1," * 300_000, "(" * 2**20, " " * 2**20 + "x", "is not " * 100_000,
        "Q: " * 200_000, "\n" * 2**20, "$" * 2**20, "**" * 300_000, "answer (" * 100_000, "A) " * 200_000, "a" * 2**20,
        "The answer is " + "not " * 200_000, "1 000 " * 150_000, "one hundred " * 80_000, "\\frac" * 150_000,
    )),
)  # fmt: skip


def texts(kind: Kind, count: int) -> Iterator[Question]:
    """Texts of a few sentences as models write them; no two alike."""
    draw = random.Random(0)
    for _ in range(count):
        a, b = draw.randrange(10**6), draw.randrange(10**6)
        working = WORKING.format(a=a, b=b, c=a + b) * draw.randrange(1, 4)
        if kind == "numeric":
            ending = draw.choice(["The answer is {}.", "#### {}", "Therefore, she has **{}** apples.", "\\boxed{{{}}}"])
            yield Question(kind, str(a + b), working + ending.format(a + b))
        elif kind == "choice":
            options = ("A)river", "B)desk", "C)mountain", "D)book", "E)house")
            ending = draw.choice(["The answer is ({}).", "So option {} is correct.", "**Answer: {}**", "Answer: {})"])
            yield Question(kind, "B", working + ending.format(draw.choice("ABCDE")), options)
        elif kind == "boolean":
            ending = draw.choice(
                ["The answer is {}.", "So the answer is **{}**.", "Thus, {}, she could.", "Answer: {}"]
            )
            yield Question(kind, "yes", working + ending.format(draw.choice(["yes", "no"])))
        else:
            x, y = draw.randrange(2, 99), draw.randrange(2, 99)
            pairs = [(f"\\frac{{{x}}}{{{y}}}", f"\\dfrac{{{2 * x}}}{{{2 * y}}}"), (f"x^2+{x}x+{y}", f"{y}+{x}x+x^2")]
            gold, said = draw.choice(
                [*pairs, (f"{x}\\sqrt{{{y}}}", f"\\sqrt{{{x * x * y}}}"), (f"({x},{y})", f"({y},{x})")]
            )
            yield Question(kind, gold, f"{working}Therefore, it is $\\boxed{{{said}}}$.")


def rate(work: Callable[[], int], times: int = 3) -> float:
    """The median of several rates."""
    rates = []
    for _ in range(times):
        began = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - began))
    return statistics.median(rates)


def in_process(kind: Kind, count: int, times: int = 3) -> float:
    questions = list(texts(kind, count))
    return rate(lambda: sum(1 for _ in grade_all(iter(questions))), times)


def line(question: Question) -> str:
    row = {"kind": question.kind, "gold": question.gold, "prediction_text": question.text}
    return json.dumps({**row, "choices": list(question.choices)} if question.choices else row) + "\n"


def command(path: Path, count: int) -> tuple[float, float]:
    """Lines a second, start included, and the peak memory in MiB of `stillroom grade`."""
    began = time.perf_counter()
    code = (
        "import resource, sys; sys.argv = ['stillroom', 'grade', sys.argv[1]]; "
        "from stillroom.cli import main\ntry: main()\nfinally: "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    return count / (time.perf_counter() - began), int(done.stderr.split()[-1]) / 1024


def through_command(count: int, many: int) -> tuple[float, float]:
    """The rate over `count` lines, and the MiB by which `many` lines need more memory than `count` do."""
    with tempfile.TemporaryDirectory() as folder:
        few, all_ = Path(folder) / "few.jsonl", Path(folder) / "many.jsonl"
        lines = [line(q) for kind in ("numeric", "choice", "boolean") for q in texts(kind, count // 3)]  # type: ignore[arg-type]
        few.write_text("".join(lines))
        with all_.open("w") as out:
            for _ in range(many // len(lines)):
                out.writelines(lines)
        runs = [command(few, len(lines)) for _ in range(3)]
        _, peak = command(all_, many)
        return statistics.median(rate for rate, _ in runs), peak - max(memory for _, memory in runs)


def started() -> float:
    """Seconds until all processes of the library for mathematics have answered for the first time."""
    began = time.perf_counter()
    with ThreadPoolExecutor(workers.WORKERS) as asking:
        list(asking.map(lambda number: workers.verify(f"x+{number}", f"{number}+x"), range(2 * workers.WORKERS)))
    return time.perf_counter() - began


def longest_bait() -> float:
    slowest = 0.0
    for kind, bait in BAITS:
        began = time.perf_counter()
        grade(kind, "12", bait)
        slowest = max(slowest, seconds := time.perf_counter() - began)
        if seconds > 1:
            print(f"{seconds:.1f} s: {kind} {bait[:30]!r}", file=sys.stderr)
    return slowest


def main() -> None:
    quick = "--quick" in sys.argv
    load = told_load()
    figures = [
        at_least(f"{kind} in process", in_process(kind, 20_000), "/s", 20_000)
        for kind in ("numeric", "choice", "boolean")  # type: ignore[misc]
    ]
    rates, growth = through_command(60_000, 120_000 if quick else 1_020_000)
    figures.append(at_least("stillroom grade", rates, "/s", 15_000))
    figures.append(at_most("growth over many lines", growth, "MiB", 16))
    start = started()
    figures.append(at_least("mathematics", in_process("math", 2_000, 1), "/s", 400, start=round(start, 2)))
    figures.append(at_most("longest bait", longest_bait(), "s", 5))
    close("grade", figures, load, "math-verify", "sympy")


if __name__ == "__main__":
    main()
