"""Figures of what a crosscoder's latents do when they are taken out, and when they are pushed."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import plotly.graph_objects as go

from stillroom.records import Finding
from stillroom.report.figures import COLOURS, DASHES, Figure, dotted, finished, interval, nulls_of

BEYOND = " beyond its matched control"
LOST = re.compile(r"accuracy lost without the (\d+) latents of ")
STEERED = re.compile(r"(tokens|accuracy) with latent (\d+) at strength (\S+?)(, beyond random directions)?")
SHARES = (0.5, 1, 2, 5, 10, 20)
COLUMNS = ("measure", "where", "value", "low", "high", "n", "nulls")


def told(findings: Sequence[Finding]) -> list[tuple[Any, ...]]:
    """Findings in the order of `COLUMNS`."""
    return [(f.metric, f.position, f.value, f.low, f.high, f.n, nulls_of(f)) for f in findings]


def cause_figures(name: str, findings: Sequence[Finding]) -> Iterator[Figure]:
    """Of one pair: is what was found for a step needed, how far logits move, and what steering does."""
    yield from _needed(name, findings)
    yield from _changes(name, findings)
    yield from _steered(name, findings)


def verdicts(findings: Sequence[Finding]) -> list[str]:
    """For each category in a sentence whether its latents matter more than their matched control, or why that is not
    told."""
    beyond = {f.position: f for f in findings if f.metric.endswith(BEYOND)}
    sentences = []
    for found in (f for f in findings if f.metric == "latents found"):
        f = beyond.get(f"problems with {found.position}")
        if not found.value:
            sentences.append(f"No latent was found for {found.position}.")
        elif f is None:
            sentences.append(f"For {found.position} there are too few latents or problems to compare with a control.")
        else:
            verdict = "needed" if f.low > 0 else "not established"
            points = f"{100 * f.value:+.1f} points [{100 * f.low:+.1f}, {100 * f.high:+.1f}]"
            chance = "".join(f", {null.name} {100 * null.value:+.1f}" for null in f.nulls)
            rule = "".join(f", {null.name} {null.value:g}" for null in found.nulls).removeprefix(", ")
            count = f"{found.value:g} latents" + (f" ({rule})" if rule else "")
            sentences.append(f"{found.position}: {count}, {points} beyond the control (n = {f.n}{chance}): {verdict}.")
    return sentences


def _needed(name: str, findings: Sequence[Finding]) -> Iterator[Figure]:
    told_of = [f for f in findings if f.metric == "latents found"]
    lost = [f for f in findings if LOST.match(f.metric)]
    if not told_of:
        return
    labels = [f"{f.position.removeprefix('problems with ')} ({LOST.match(f.metric)[1]} latents)" for f in lost]  # type: ignore[index]
    plot = dotted(labels, lost, "accuracy lost")
    plot.update_xaxes(tickformat=".0%")
    rest = [f for f in findings if f.position.startswith("problems with ") and f not in lost]
    figure = finished(
        f"crosscoder-needed-{name}",
        f"Crosscoder {name}: is what was found for a step needed?",
        "The accuracy that is lost on test problems that need an operation without the latents found for it (NRN "
        "above ½, among the most frequent fifth at its tokens, there 1.5 × as frequent as anywhere), the "
        "dictionary's error kept. Null: as many latents with NRN up to ½ that fire as often and as strongly, random "
        "latents, and the reconstruction alone; beside the number of latents what the same rule finds in the null "
        "dictionaries, which says how little NRN above ½ alone means. " + " ".join(verdicts(findings)),
        plot,
        COLUMNS,
        told([*told_of, *lost, *rest]),
        height=150 + 44 * len(lost),
    )
    yield figure if lost else figure._replace(plot="")


def _changes(name: str, findings: Sequence[Finding]) -> Iterator[Figure]:
    """Change of the right answer's logit by the share of latents that is taken out, for every category."""
    rows = [f for f in findings if f.metric.startswith("change of logit")]
    if not rows:
        return
    plot = go.Figure()
    for index, category in enumerate(dict.fromkeys(f.position for f in rows)):
        mine = [f for f in rows if f.position == category]
        x = [float(f.metric.split()[-2]) for f in mine]
        line = {"color": COLOURS[index % len(COLOURS)], "dash": DASHES[index % len(DASHES)]}
        plot.add_scatter(
            x=x, y=[f.value for f in mine], name=category, error_y=interval(mine), line=line, mode="lines+markers"
        )
        for null, look in (("matched control", "circle-open"), ("random latents", "x-thin-open")):
            plot.add_scatter(
                x=x, y=[next(n.value for n in f.nulls if n.name == null) for f in mine], name=f"{category}: {null}",
                opacity=0.5, mode="lines+markers", line={**line, "width": 1}, marker={"symbol": look},
            )  # fmt: skip
    plot.update_xaxes(title="share of the latents that fire at the category (%)", type="log", tickvals=SHARES)
    plot.update_yaxes(title="change of logit")
    yield finished(
        f"crosscoder-logit-{name}",
        f"Crosscoder {name}: what its latents do",
        "The change of the logit of what comes next, the right answer or the word with which a text turns, when the "
        "most frequent latents of a category with NRN above ½ are taken out of the subject's residual stream, its "
        "error kept. Null: as many latents with NRN up to ½ that fire as often and as strongly (open circles), and "
        "random latents (crosses). Where the lines meet, the chosen latents are nothing special.",
        plot,
        COLUMNS,
        told(rows),
        height=480,
    )


def _steered(name: str, findings: Sequence[Finding]) -> Iterator[Figure]:
    """Tokens and accuracy of steered answers, a figure each."""
    found = [(f, match) for f in findings if (match := STEERED.fullmatch(f.metric))]
    titles = {"tokens": "how long answers get", "accuracy": "how often answers are right"}
    for what, title in titles.items():
        mine = [(f, match) for f, match in found if match[1] == what]
        levels = [(f, match) for f, match in mine if not match[4]]
        if not levels:
            continue
        labels = [f"{f.position}: latent {match[2]}, {match[3]}" for f, match in levels]
        beyond = [f for f, match in mine if match[4]]
        apart = sum(f.low > 0 or f.high < 0 for f in beyond)
        yield finished(
            f"crosscoder-steered-{what}-{name}",
            f"Crosscoder {name}: {title} when its latents are pushed",
            "Answers while a latent's direction is added at every token; a strength of 1 is the latent's own largest "
            "value. Null: not steered, and three random directions of the same length. Paired by problem, "
            f"{apart} of {len(beyond)} intervals of the difference from random directions leave 0 out.",
            dotted(labels, [f for f, _ in levels], "tokens" if what == "tokens" else "accuracy"),
            COLUMNS,
            told([f for f, _ in mine]),
            height=150 + 30 * len(levels),
        )
