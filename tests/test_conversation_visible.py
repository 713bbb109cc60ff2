"""What is shown cannot steer what shows it; a colour tells sign and size."""

import pytest

from stillroom.conversation.heat import NEGATIVE, POSITIVE, ZERO, colour, folded, scale
from stillroom.conversation.visible import shortened, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;mine\x07", "\\x1b[2J\\x1b]0;mine\\x07"),
        ("a\rb\x00\x7f\x9b31m", "a\\x0db\\x00\\x7f\\x9b31m"),
        ("right\u202eto left\u2066", "right\\u202eto left\\u2066"),
        ("half \ud800 of a pair", "half \\ud800 of a pair"),
        ("\U000e0041", "\\U000e0041"),
        ("two\nlines\tand ‖ß — 漢字 👩\u200d👧", "two\nlines\tand ‖ß — 漢字 👩\u200d👧"),
    ],
)
def test_control_characters_are_spelled_out_and_letters_are_not(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_line_is_as_long_as_it_may_be() -> None:
    assert shortened("one\n two", 20) == "one two"
    assert shortened("x" * 100_000, 10) == "x" * 9 + "…"


def test_blue_is_negative_grey_zero_red_positive() -> None:
    assert (colour(-9, 2), colour(0, 2), colour(9, 2)) == (NEGATIVE, ZERO, POSITIVE)
    assert colour(1, 2) == (195, 112, 122)


def test_cells_that_are_shared_show_the_strongest() -> None:
    assert folded([1, -3, 2, 2, 0, -1], 3) == [-3, 2, -1]
    assert folded([1, 2], 5) == [1, 2]


def test_a_few_outliers_do_not_set_the_scale() -> None:
    assert scale([[1.0] * 99 + [50.0]]) == 1.0
    assert scale([[0.0], []]) == scale([]) == 1.0
