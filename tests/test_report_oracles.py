"""The oracle and the teacher in the report: readers beside controls, intervals as the compliance report has them."""

import json
from pathlib import Path
from typing import Any

import pytest

from report_toys import HOSTILE
from stillroom.report.figures import Figure
from stillroom.report.oracles import oracle_figures
from stillroom.report.teaching import compliance_figures


def scored(value: float) -> dict[str, Any]:
    measured = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {"n": 12, "accuracy": measured, "balanced": measured}


def claim(established: bool) -> dict[str, Any]:
    return {"best control": "majority", "best lens": "logit lens", "established": established}


@pytest.fixture
def oracle(tmp_path: Path) -> Path:
    by = {"injection": scored(0.8), "text": scored(0.4), "majority": scored(0.5), "logit lens": scored(0.6)}
    told = {
        "scores": {"value": by},
        "claims": {"value": {"injection": claim(True), "text": claim(False)}},
        "founding": {
            "founding critical": {
                "there": by, "here": None, "trivial": {"value": 1.0, "best guess": "Step 0"},
            }
        },
        "taught": {
            "injection": {
                "train": 9, "train problems": 3, "validation": 2, "validation problems": 1, "loss by epoch": [2.0, 1.0],
                "validation loss": 1.5,
            }
        },
    }  # fmt: skip
    (tmp_path / "oracle.json").write_text(json.dumps(told))
    lines = [
        {"strategy": "value", "problem": f"p{i}", "question": "Which?", "answer": "7", "said": {"injection": HOSTILE}}
        for i in range(5)
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def drawn(figure: Figure) -> dict[str, list[float]]:
    return {trace["name"]: trace["x"] for trace in json.loads(figure.plot)["data"]}


def test_readers_stand_beside_their_best_control_and_the_best_lens(oracle: Path) -> None:
    scores, founding, taught, answers = oracle_figures({"latent": oracle})
    assert drawn(scores) == {"injection": [0.8], "text": [0.4], "best control": [0.5], "best lens": [0.6]}
    assert "Established here: value (injection)." in scores.caption
    assert scores.rows[0][:6] == ("value", "injection", "yes", 0.8, pytest.approx(0.7), pytest.approx(0.9))
    assert founding.rows[0] == ("founding critical", "injection", 0.8, 1.0, "Step 0", None)
    assert taught.rows == [("injection", 9, 3, 2, 1, 2.0, 1.0, 1.5)]
    assert [row[1] for row in answers.rows] == ["p0", "p1"]
    assert answers.rows[0][-1] == HOSTILE
    assert {figure.made_of for figure in (scores, founding, taught, answers)} == {("oracle latent",)}


def compliant(level: int | None, words: float) -> dict[str, Any]:
    spread = [words, words - 1, words + 1]
    names = ("words", "sentences", "steps", "equations", "truncated", "kept")
    told = dict.fromkeys(names, spread) | {"accuracy": None, "n": 3}
    return {
        "cell": ["toy", "t", "plain", level],
        "equations_a_step": 1.0,
        "distinct_2": 0.5,
        "self_similarity": 0.5,
        **told,
    }


def test_levels_of_a_teacher_are_drawn_and_a_single_one_is_a_table(tmp_path: Path) -> None:
    family = {"dataset": "toy", "teacher": "t", "format": "plain", "monotonicity": [0.9, 0.8, 1.0], "blurred": [[1, 2]]}
    both = {"cells": [compliant(2, 8.0), compliant(1, 5.0)], "families": [family]}
    (tmp_path / "compliance.json").write_text(json.dumps(both))
    (figure,) = compliance_figures({"compliance": tmp_path})
    (line,) = json.loads(figure.plot)["data"]
    assert (line["x"], line["y"]) == ([1, 2], [5.0, 8.0])
    assert "levels 1 and 2 do not separate in length" in figure.caption
    (tmp_path / "compliance.json").write_text(json.dumps({"cells": [compliant(None, 5.0)], "families": []}))
    (figure,) = compliance_figures({"compliance": tmp_path})
    assert figure.plot == ""
    assert figure.rows[0][5] == "5 [4, 6]"
    assert figure.rows[0][9] is None
    assert compliance_figures({}) == []
