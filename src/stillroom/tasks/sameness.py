"""When two questions are the same: letters, digits and operators alike, whatever the case, blanks and punctuation."""

import re

BLANK = re.compile(r"[\s.,;:!?\"'“”‘’]+")


def same_question(question: str) -> str:
    """What questions that differ in nothing of substance have in common."""
    return BLANK.sub(" ", question.casefold()).strip()
