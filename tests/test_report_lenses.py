"""What lenses call their findings is what the report asks for: on a toy every question about the inside is answered."""

from report_toys import SCORES
from stillroom.lenses import LENSES
from stillroom.lenses.subjects import Subjects
from stillroom.report.answers import UNANSWERED, questions
from stillroom.report.attention import pattern_figures
from stillroom.report.evidence import Evidence
from stillroom.report.ledger import COLUMNS, EMPTY, ledger
from toys import problem, student

ROWS = [
    problem(f"{i}", (f"{i % 9} + 2", i % 9 + 2), (f"{i % 9 + 2} + 1", i % 9 + 3),
            question=f"Ann has {i % 9} eggs and gets 2 and 1.")
    for i in range(64)
]  # fmt: skip
SPLITS = {"train": ROWS[:40], "validation": ROWS[40:52], "test": ROWS[52:]}
ASKED = ("weights", "logit_lens", "probes", "attention", "patching", "ablation")


def test_all_five_questions_are_answered_and_the_ledger_has_every_lens() -> None:
    people = {"base": student(), "normal": student(seed=1), "distilled": student(seed=2)}
    found = [f for name in ASKED for f in LENSES[name].look(LENSES[name].config(), Subjects(people, {}, SPLITS))]
    valid = [f for f in found if not f.invalid]
    for answer in questions(Evidence(SCORES, [], valid))[:5]:
        assert answer.sentences != [UNANSWERED], answer.question
        assert all("(n = " in sentence for sentence in answer.sentences)
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ledger(valid)]
    assert {row["lens"] for row in rows} == {"logit_lens", "probes", "patching"}
    assert {row["student"] for row in rows} == {*people}
    assert any(row["another value there moves the answer"] != EMPTY for row in rows if row["lens"] != "patching")
    assert len(pattern_figures(valid)) == 2
