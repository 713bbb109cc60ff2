"""One row of each benchmark in its own notation, and where the real files lie."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("STILLROOM_DATA") or Path(__file__).parents[2] / "shared" / "data")

OPTIONS = [{"label": "A", "text": "bank"}, {"label": "B", "text": "mall"}]
ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "Ann has 1,000 eggs.", "answer": "She gets 1 + 1 = <<1+1=2>>2 each.\n#### 1,002"},
    "svamp": {
        "ID": "c-1", "Body": "Ann had 4 eggs.", "Question": "How many are 3 fewer?", "Equation": "( 4.0 - 3.0 )",
        "Answer": 1.0,
    },
    "aqua": {"question": "1 + 1?", "options": ["A)1", "B)2", "C)3"], "rationale": "It is two.", "correct": "B"},
    "math": {"problem": "Half?", "solution": r"It is $\boxed{\frac{1}{2}}$.", "answer": r"\frac{1}{2}"},
    "csqa": {"answerKey": "B", "id": "q1", "question": {"stem": "Where?", "choices": OPTIONS}},
    "openbookqa": {"question_stem": "Where to?", "choices": OPTIONS, "answerKey": "A"},
    "strategyqa": {"question": "Is it?", "answer": False, "facts": "It is not."},
    "gsm8k_aug": {"question": "How many?", "steps": ["<<1+1=2>>", "<<2*3=6>>"], "answer": "6"},
    "gsm_hard": {"input": "How much?", "code": "", "target": 3244047.0999999996},
    "multiarith": {"lEquations": ["X=((32.0+42.0)-35.0)"], "lSolutions": [39.0], "sQuestion": " How many left? "},
    "asdiv": {"body": "Seven and two.", "question": "How many?", "answer": "9 (apples)"},
    "mawps": {"input": "Joan found 70.", "target": 43.0},
    "math500": {"problem": "Two?", "solution": "Two.", "answer": "2"},
}  # fmt: skip


def line(name: str, **changes: object) -> str:
    return json.dumps({**ROWS[name], **changes}, ensure_ascii=False)


def needs(*files: str) -> pytest.MarkDecorator:
    missing = [file for file in files if not (DATA / file).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: set STILLROOM_DATA to its folder")
