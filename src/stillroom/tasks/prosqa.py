"""prosqa: is somebody one thing or another, by a path through a random graph (Hao et al. 2024, arXiv 2412.06769, A.2).

The graph grows node by node from two roots: each new node gets a few parents, drawn from those that do not descend from
one of the roots or, seldom, from all, the deeper the likelier. `Every A is a B.` is an edge. Each candidate is a
leaf furthest from one root that the other root does not reach; the chain is a shortest path. Shares that the paper
leaves open (`MIXED`, `DEEPER`, `LONE`, `LONGER`, the sizes) are set so that the graphs match the published test set.

Which of the two roots is asked about is tossed once graph and candidates stand, and sentences and candidates come in
random order: nothing but the person asked about tells the right candidate. In the published set the right one is the
deeper of the two in nine of ten and has fewer sentences about it in two of three, without a look at the person.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from stillroom.config import Config
from stillroom.records import Problem, Step
from stillroom.records import content_key as digest
from stillroom.tasks.skeletons import home, take

PEOPLE = (
    "Alex", "Bob", "Carol", "Davis", "Eva", "Fae", "Gabriel", "Jack", "Max", "Oliver", "Polly", "Rex", "Sally",
    "Sam", "Stella", "Tom", "Wren",
)  # fmt: skip
THINGS = tuple(
    f"{stem}pus"
    for stem in (
        "bom", "boom", "brim", "chor", "dum", "fel", "fom", "ger", "gor", "grim", "gwom", "hil", "im", "jel", "jom",
        "ker", "lem", "lor", "num", "quim", "rem", "rom", "ror", "scrom", "shum", "ster", "stor", "ter", "tim", "tum",
        "vum", "wor", "wum", "yer", "yim", "yum", "zhor", "zum",
    )
)  # fmt: skip
NEITHER, FIRST, SECOND, BOTH = range(4)
"""Whose descendant a node is."""
MIXED, LONE = 0.15, 0.025
"""Shares of nodes whose parents may descend from either root, and of zeros that are kept when parents are counted."""
DEEPER, LONGER = 10.0, 1.3
"""What a step of depth adds to a parent's weight, and how much likelier a graph is kept for each step of its chains."""
SIZES, SMALL = (17, 28), (6, 8)
"""The number of nodes is the lower bound and coin flips up to the upper one."""


class ProsqaConfig(Config):
    name: Literal["prosqa"] = "prosqa"
    seed: int = 0
    train: int = Field(17_886, ge=1)
    """As many as the published set has."""
    narrated: int = Field(0, ge=0)
    """Graphs of 6 to 8 nodes whose answer is one step away."""
    validation: int = Field(300, ge=1)
    test: int = Field(500, ge=1)


class Graph(NamedTuple):
    size: int
    edges: tuple[tuple[int, int], ...]
    """From child to what it is, each parent made before its child."""
    sides: tuple[int, ...]
    """Of every node: NEITHER, FIRST, SECOND or BOTH."""


def grow(rng: random.Random, size: int) -> Graph:
    """A directed graph without rings on 0..size-1; nodes 0 and 1 are its first two roots."""
    sides, depth, edges = [FIRST, SECOND], [0, 0], []
    for node in range(2, size):
        kept_out = 0 if rng.random() < MIXED else rng.choice((FIRST, SECOND))
        pool = [n for n in range(node) if not sides[n] & kept_out]
        parents = _some(rng, pool, [1 + DEEPER * depth[n] for n in pool], min(_indegree(rng), len(pool)))
        edges += [(parent, node) for parent in parents]
        sides.append(NEITHER)
        for parent in parents:
            sides[node] |= sides[parent]
        depth.append(1 + max((depth[parent] for parent in parents), default=-1))
    return Graph(size, tuple(edges), tuple(sides))


def _indegree(rng: random.Random) -> int:
    """Poisson with mean 1.5; of its zeros only few stay, as further roots."""
    while True:
        count, clock = -1, 0.0
        while clock < 1.5:
            clock += rng.expovariate(1.0)
            count += 1
        if count or rng.random() < LONE:
            return count


def _some(rng: random.Random, pool: Sequence[int], weights: Sequence[float], count: int) -> list[int]:
    """`count` different members of the pool, heavier ones likelier."""
    left, chosen = dict(zip(pool, weights, strict=True)), []
    for _ in range(count):
        (pick,) = rng.choices(list(left), list(left.values()))
        chosen.append(pick)
        del left[pick]
    return chosen


def paths(graph: Graph, root: int) -> dict[int, list[int]]:
    """A shortest path from `root` to everything that it reaches."""
    children = defaultdict(list)
    for parent, child in graph.edges:
        children[parent].append(child)
    found = {root: [root]}
    queue = [root]
    for node in queue:
        for child in children[node]:
            if child not in found:
                found[child] = [*found[node], child]
                queue.append(child)
    return found


def draw(rng: random.Random, size: int, steps: tuple[int, int]) -> Problem | None:
    """One problem whose chain has steps[0]..steps[1] steps; None where the graph does not offer one on either side.

    Both sides are treated alike until one is asked about, so that no trait of the candidates alone gives it away.
    """
    graph = grow(rng, size)
    chains = [longest(rng, graph, root, steps) for root in (0, 1)]
    if not all(chains):
        return None
    if rng.random() > LONGER ** (sum(map(len, chains)) - 2 * (steps[1] + 1)):
        return None
    asked, other = rng.sample(chains, 2)
    return tell(rng, graph, asked, other[-1])


def longest(rng: random.Random, graph: Graph, root: int, steps: tuple[int, int]) -> list[int]:
    """A shortest path to one of the furthest leaves that this root alone reaches, of steps[0]..steps[1] steps."""
    inner = {parent for parent, _ in graph.edges}
    side = (FIRST, SECOND)[root]
    ends = [path for leaf, path in paths(graph, root).items() if leaf not in inner and graph.sides[leaf] == side]
    fitting = [path for path in ends if steps[0] < len(path) <= steps[1] + 1]
    furthest = max(map(len, fitting), default=0)
    return rng.choice([path for path in fitting if len(path) == furthest]) if fitting else []


def tell(rng: random.Random, graph: Graph, path: Sequence[int], wrong: int) -> Problem:
    """The graph in words: nodes without parents are people, the others things."""
    made = {child for _, child in graph.edges}
    sources = [node for node in range(graph.size) if node not in made]
    people, things = rng.sample(PEOPLE, len(sources)), rng.sample(THINGS, graph.size - len(sources))
    names = [people.pop() if node in sources else things.pop() for node in range(graph.size)]

    def said(parent: int, child: int) -> str:
        subject = names[parent] if parent in sources else f"Every {names[parent]}"
        return f"{subject} is a {names[child]}."

    sentences = [said(*edge) for edge in rng.sample(graph.edges, len(graph.edges))]
    pair = rng.sample([path[-1], wrong], 2)
    asked = f"Is {names[path[0]]} a {names[pair[0]]} or {names[pair[1]]}?"
    steps = [Step(expression=said(a, b), value=names[b]) for a, b in pairwise(path)]
    return Problem(
        task="prosqa", id="", question=" ".join([*sentences, asked]), answer=names[path[-1]], kind="choice",
        choices=tuple(names[node] for node in pair), steps=tuple(steps), story=" ".join(sentences),
        skeleton=skeleton(graph, path, wrong), solution=" ".join(step.expression for step in steps),
    )  # fmt: skip


def skeleton(graph: Graph, path: Sequence[int], wrong: int) -> str:
    """A name for the graph and what is asked of it that no renaming changes: colours refined until they are stable."""
    colour = {node: (node == path[0]) + 2 * (node == path[-1]) + 3 * (node == wrong) for node in range(graph.size)}
    for _ in range(graph.size):
        above, below = defaultdict(list), defaultdict(list)
        for parent, child in graph.edges:
            above[child].append(colour[parent])
            below[parent].append(colour[child])
        signs = {n: (colour[n], tuple(sorted(above[n])), tuple(sorted(below[n]))) for n in colour}
        order = {sign: rank for rank, sign in enumerate(sorted(set(signs.values())))}
        finer = {n: order[sign] for n, sign in signs.items()}
        if len(set(finer.values())) == len(set(colour.values())):
            break
        colour = finer
    return digest(sorted((colour[parent], colour[child]) for parent, child in graph.edges))


def draws(config: ProsqaConfig, split: str, sizes: tuple[int, int], steps: tuple[int, int]) -> Iterator[Problem]:
    rng = random.Random(f"prosqa {config.seed} {split}")
    while True:
        size = sizes[0] + sum(rng.random() < 0.53 for _ in range(sizes[1] - sizes[0]))
        if found := draw(rng, size, steps):
            yield found


def splits(config: ProsqaConfig, _data: Path) -> dict[str, list[Problem]]:
    """`train`, `validation` and `test` with chains of 3 to 6 steps, `narrated` with one."""
    counts = {"train": config.train, "validation": config.validation, "test": config.test}
    found = {name: take(n, name, name, draws(config, name, SIZES, (3, 6))) for name, n in counts.items()}
    short = (p for p in draws(config, "narrated", SMALL, (1, 1)) if home(p.skeleton) == "train")
    narrated = [next(short).model_copy(update={"id": f"narrated-1-{i + 1}"}) for i in range(config.narrated)]
    return {**found, **({"narrated": narrated} if narrated else {})}
