"""Toy students to talk with: random, and loud enough that every thought matters."""

from collections.abc import Sequence

import torch

import toys
from stillroom.conversation import Speaker
from stillroom.errors import UsageError
from stillroom.oracle.readers import Reader
from stillroom.students import Manner, Student
from stillroom.students.folders import BEGIN, END, Thoughts
from stillroom.students.thinking import mlp
from stillroom.students.tokens import add_tokens

COUNT = 3
QUESTIONS = [problem.question for problem in toys.sums(6)]


def thinking(seed: int = 0) -> Student:
    words = toys.tokenizer()
    model = toys.llama(len(words), seed)
    add_tokens(model, words, [BEGIN, END])
    torch.manual_seed(seed)
    return Student(model, words, Manner(thoughts=Thoughts(count=COUNT)), mlp(16, 16).eval())


def speaker(student: Student | None = None, company: Sequence[str] = QUESTIONS[3:], name: str = "toy") -> Speaker:
    return Speaker(name, student or thinking(), company, no_reader, new_tokens=8)


def no_reader() -> Reader:
    raise UsageError("the store holds no reader of this student's thoughts")
