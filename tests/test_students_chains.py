"""A chain in parts joins to what the `normal` student reads; the value's place is found from offsets."""

from stillroom.curriculum import _lessons
from stillroom.records import Rationale
from stillroom.students import Manner, Student
from stillroom.students.chains import chains
from stillroom.students.prompts import completions_ids
from toys import MODELS, problem, tokenizer

WORDS = tokenizer()
STUDENT = Student(MODELS["llama"](len(WORDS)), WORDS, Manner())
PROBLEM = problem("a", ("2 + 3", 5), ("5 + 1", 6), question="Ann has 2 eggs and gets 3 and 1.")
RATIONALE = Rationale(
    problem="a", teacher="worked", granularity=None, format="plain", text="Step 1: 2 + 3 = 5\nStep 1: 5 + 1 = 6"
)


def test_the_parts_join_to_the_whole_chain_and_any_step_can_be_left_out() -> None:
    (lesson,) = _lessons(PROBLEM, RATIONALE, "latent")
    (normal,) = _lessons(PROBLEM, RATIONALE, "normal")
    (chain,) = chains([lesson], STUDENT)
    whole = [*chain.opening, *(token for step in chain.steps for token in step), *chain.closing, *chain.answer]
    assert [whole] == completions_ids([normal.completion], "plain", WORDS)
    assert chain.prompt == STUDENT.prompt(PROBLEM.question)
    assert [WORDS.decode(step) for step in chain.steps] == ["Step 1: 2 + 3 = 5\n", "Step 1: 5 + 1 = 6\n"]
    assert WORDS.decode(chain.answer) == "The answer is 6.<eos>"


def test_the_token_before_the_value_is_the_last_that_leads_to_it() -> None:
    """Pitfall 7: the place is found from token offsets, never from a model's name."""
    (lesson,) = _lessons(PROBLEM, RATIONALE, "latent")
    (chain,) = chains([lesson], STUDENT)
    assert WORDS.decode(chain.answer[: chain.value_at]) == "The answer is"
    assert WORDS.decode(chain.answer[chain.value_at]) == " 6"
