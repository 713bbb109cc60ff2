"""Prompts: what a teacher is asked, for a granularity level and a format."""

from stillroom.records import Problem

STYLES = {
    "plain": "Reason step by step.",
    "least-to-most": "Break the question into smaller questions, simplest first, and answer each.",
    "rephrase-and-respond": "Say the question again in your own words, then reason step by step.",
    "symbolic": "Reason in equations, with few words.",
}


def messages(problem: Problem, granularity: int, format: str) -> list[dict[str, str]]:
    """The chat that asks for one rationale; its reply ends with `The answer is X.`"""
    system = f"{STYLES[format]} Level of detail: {granularity} of 6. The last line is: The answer is X."
    return [{"role": "system", "content": system}, {"role": "user", "content": problem.question}]
