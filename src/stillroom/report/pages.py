"""What every page of this room shares: its parts, its templates, and how each figure is made again."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import plotly.offline
from markupsafe import Markup, escape

from stillroom.report.figures import Figure
from stillroom.stats import p_value
from stillroom.store import MANIFEST, Manifest

CLAIM = re.compile(r"(?<=;) (?![^(]*\))|(?<=\.) (?=[A-Z])")
"""Where one claim of an answer ends."""
QUALIFIED = re.compile(r"\[[^\]]*\]|\(n = \d+\)|[\d.]+ %")
"""An interval, a number of problems, a share."""
KINDS = 3
"""Traces that figures have beside scatter, which is plotly.js's own: bar, box and heatmap stand first in its list."""
LIST = re.compile(r"\.register\(\[((?:[\w$]+\(\),?)+)\]\)")


class Part(NamedTuple):
    """A section of the page. Its anchor is the last word of permanent addresses."""

    anchor: str
    title: str
    words: str = ""
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()


class Remake(NamedTuple):
    """Where a figure's numbers stand, and the command that makes them anew."""

    folders: list[str]
    command: str


def remakes(recipe: str, figures: Sequence[Figure], parents: Mapping[str, Path]) -> dict[str, Remake]:
    """For each figure by its anchor; none for what is made of no single stage. Parents come in the order of stages, and
    the last of those that a figure is made of brings the others."""
    order = list(parents)
    found = {}
    for figure in figures:
        if figure.made_of:
            folders = [address(parents[role]) for role in figure.made_of]
            stage = manifest(parents[max(figure.made_of, key=order.index)]).stage
            found[figure.anchor] = Remake(folders, f"stillroom run {recipe} --until {stage}")
    return found


def address(folder: Path) -> str:
    """`STAGE/KEY`, as `stillroom show` takes it."""
    told = manifest(folder)
    return f"{told.stage}/{told.key}"


def manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


def library() -> str:
    """plotly.js without the traces that no figure has: to register those, maps and 3D among them, is most of what a
    browser takes to start it. A version that lists its traces in another way is taken whole."""
    return LIST.sub(
        lambda found: f".register([{','.join(found[1].split(',')[:KINDS])}])", plotly.offline.get_plotlyjs()
    )


def data(figure: Figure) -> Markup:
    """A figure as JSON that may stand in a script element: its plot, and its table column by column."""
    cells = [column([plain(cell) for cell in one]) for one in zip(*figure.rows, strict=True)]
    table = json.dumps(
        {"columns": figure.columns, "cells": cells},
        ensure_ascii=False, separators=(",", ":"), allow_nan=False,
    )  # fmt: skip
    text = f'{{"plot":{figure.plot or "null"},{table[1:]}'
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 (no element can begin in it)


def column(cells: list[Any]) -> list[Any] | dict[str, list[Any]]:
    """A column as it is, or where words recur in it each word once, and which stands in each row."""
    if not all(isinstance(cell, str) for cell in cells) or len(words := list(dict.fromkeys(cells))) > len(cells) / 2:
        return cells
    at = {word: place for place, word in enumerate(words)}
    return {"words": words, "at": [at[cell] for cell in cells]}


def plain(cell: Any) -> Any:
    """A value that JSON has: a number that is none is named."""
    return str(cell) if isinstance(cell, float) and not math.isfinite(cell) else cell


def markdown(value: Any) -> Markup:
    """A value in a line of Markdown: no element, link or cell can begin in it."""
    text = "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(").replace("|", "\\|")
    return Markup(" ".join(escaped.split()))  # noqa: S704 (escaped here)


def prose(text: str) -> Markup:
    """A caption, what stands between backticks as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped first)


def claims(sentence: str) -> Markup:
    """An answer with whom it is about in bold, each of its claims on a line, and what qualifies a number less loud."""
    who, colon, rest = sentence.partition(": ")
    named = bool(colon) and who != "Not established"
    parts = CLAIM.split(rest if named else sentence)
    lines = [f'<span class="claim">{QUALIFIED.sub(_softly, str(prose(part)))}</span>' for part in parts]
    head = f"<b>{prose(who)}:</b>\n" if named else ""
    return Markup(head + "\n".join(lines))  # noqa: S704 (escaped by `prose`)


def _softly(found: re.Match[str]) -> str:
    kept = found[0].replace(" ", "\u00a0") if len(found[0]) < 30 else found[0]
    return kept if kept.endswith("%") else f"<small>{kept}</small>"


def template(name: str) -> jinja2.Template:
    """One of this room's pages, every value in it escaped."""
    loader = jinja2.PackageLoader("stillroom.report", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["p_value"] = p_value
    environment.filters["share"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["points"] = lambda value: f"{100 * value:+.2f}"
    environment.filters["data"] = data
    environment.filters["md"] = markdown
    environment.filters["prose"] = prose
    environment.filters["claims"] = claims
    return environment.get_template(name)
