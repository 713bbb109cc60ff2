"""How a question becomes a student's prompt. The style is saved with the student, for every later reader."""

from typing import Literal

Style = Literal["plain"]
STYLES: dict[str, str] = {"plain": "{question}\n"}


def render(question: str, style: str) -> str:
    """The prompt's text; an empty question (a lesson that is all completion) stays empty."""
    return STYLES[style].replace("{question}", question) if question else ""
