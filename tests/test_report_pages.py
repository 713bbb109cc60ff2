"""What every page shares: cells that come back as they were, and a library that is cut to what figures need."""

import ast
import html
import json
import math
import re
from pathlib import Path

import plotly.offline
import pytest

import stillroom.report
from report_toys import HOSTILE, manifest
from stillroom.report.figures import Figure
from stillroom.report.pages import KINDS, LIST, claims, column, data, library, remakes
from stillroom.store import MANIFEST


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (["a", "b", "a", "a"], {"words": ["a", "b"], "at": [0, 1, 0, 0]}),
        (["a", "b", "c", "a"], ["a", "b", "c", "a"]),
        (["a", None, "a", "a"], ["a", None, "a", "a"]),
        ([1, 1, 1, 0.1 + 0.2], [1, 1, 1, 0.30000000000000004]),
    ],
)
def test_only_words_that_recur_are_told_once(cells, kept) -> None:
    assert column(cells) == kept


def test_a_figure_s_cells_are_all_there_and_no_number_is_rounded() -> None:
    figure = Figure("a", "A", "", "", ("x", "x", "y"), [("</script>", 1 / 3, None), ("</script>", math.nan, 2)])
    text = data(figure)
    assert "</script>" not in text
    assert json.loads(text) == {
        "plot": None, "columns": ["x", "x", "y"],
        "cells": [{"words": ["</script>"], "at": [0, 0]}, [1 / 3, "nan"], [None, 2]],
    }  # fmt: skip
    assert json.loads(data(figure._replace(rows=[])))["cells"] == []


def test_an_answer_stands_claim_by_claim_and_no_element_of_its_own_in_it() -> None:
    said = f"a {HOSTILE}: read 9.9 % [6.9 %, 14.1 %] (n = 24); not (a; b). Now `code {HOSTILE}`, v1.5. and e.g. this."
    told = str(claims(said))
    assert re.findall("<(?!/)[^>]*>", told) == [
        "<b>",
        '<span class="claim">',
        "<small>",
        "<small>",
        '<span class="claim">',
        '<span class="claim">',
        "<code>",
    ]
    text = html.unescape(re.sub("<[^>]*>", "", told))
    assert text.split("\n") == [
        f"a {HOSTILE}:", "read 9.9\u00a0% [6.9\u00a0%,\u00a014.1\u00a0%] (n\u00a0=\u00a024);", "not (a; b).",
        f"Now code {HOSTILE}, v1.5. and e.g. this.",
    ]  # fmt: skip
    assert str(claims("No head")) == '<span class="claim">No head</span>'


def test_the_library_registers_three_kinds_of_traces_and_is_else_whole() -> None:
    whole, cut = plotly.offline.get_plotlyjs(), library()
    (listed,) = LIST.findall(whole)
    (left,) = LIST.findall(cut)
    assert listed.split(",")[:KINDS] == left.split(",")
    assert len(listed.split(",")) > 40
    assert len(whole) - len(cut) == len(listed) - len(left)


def test_no_figure_is_of_another_kind() -> None:
    rooms = list(Path(stillroom.report.__file__).parent.glob("*.py"))
    calls = [node.func.attr for path in rooms for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]  # fmt: skip
    kinds = {name for name in calls if name.startswith("add_") and name not in ("add_hline", "add_vline")}
    assert kinds == {"add_scatter", "add_bar", "add_box", "add_heatmap"}


def test_a_figure_of_several_stages_is_made_again_by_the_last_of_them(tmp_path: Path) -> None:
    parents = {}
    for role, stage in (("base", "base"), ("normal", "student"), ("scores", "scores"), ("cost normal", "cost")):
        parents[role] = tmp_path / stage
        parents[role].mkdir()
        (parents[role] / MANIFEST).write_text(manifest(role, stage))
    made = {"loss": ("base", "normal"), "frontier": ("scores", "cost normal"), "turned": ("cost normal", "scores")}
    figures = [Figure(name, "", "", "", (), [], made_of=of) for name, of in made.items()]
    found = remakes("toy", figures, parents)
    assert found["loss"] == (["base/abc", "student/abc"], "stillroom run toy --until student")
    assert {found[name].command for name in ("frontier", "turned")} == {"stillroom run toy --until cost"}


def test_the_manual_tells_the_sections_in_their_order() -> None:
    room = Path(stillroom.report.__file__)
    told = (room.parents[3] / "docs" / "report.md").read_text(encoding="utf-8")
    listed = told.partition("Then the students in\npairs")[2].partition(".")[0].lower()
    titles = re.findall(r'_part\("\w+", "([^"?]*)\??"', room.read_text(encoding="utf-8"))
    places = [listed.index(max(title.lower().split(), key=len)) for title in titles]
    assert len(places) == 6
    assert places == sorted(places)
