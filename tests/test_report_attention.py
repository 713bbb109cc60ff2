"""A drawn pattern shows a student's weights beside the base's, where the base has the token, and even attention."""

from report_toys import FINDINGS, finding
from stillroom.records import Null
from stillroom.report.attention import pattern_figures


def test_a_pattern_is_drawn_token_by_token_and_what_the_base_lacks_is_left_open() -> None:
    even, base = (Null(name=name, value=0.5, low=0.5, high=0.5) for name in ("even attention", "base"))
    rows = [
        finding("attention to the token", value, value, value, 0.5, lens="attention", module="head 2", position=place)
        for value, place in ((0.25, "1 Ann"), (0.75, "2 thought 1"))
    ]
    rows = [rows[0].model_copy(update={"nulls": (even, base)}), rows[1].model_copy(update={"nulls": (even,)})]
    (figure,) = pattern_figures([*FINDINGS, *rows])
    assert "head 2 of layer 1" in figure.caption
    assert figure.columns == ("token", "attention", "even attention", "base")
    assert list(figure.rows) == [("1 Ann", 0.25, 0.5, 0.5), ("2 thought 1", 0.75, 0.5, None)]
    assert pattern_figures(FINDINGS) == []
