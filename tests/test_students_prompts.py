"""A question becomes a prompt, whatever it holds; an empty one stays empty."""

from stillroom.students.prompts import STYLES, render


def test_a_question_stands_whole_in_every_style() -> None:
    for style in STYLES:
        for question in ("How many?", "{question} {0} {x} % \\n", "a\nb"):
            assert question in render(question, style)
        assert render("", style) == ""


def test_the_plain_style_ends_in_a_line_end() -> None:
    assert render("How many?", "plain") == "How many?\n"
