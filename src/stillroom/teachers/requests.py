"""The nouns of asking: a request, its reply, and the two ways in which it can fail.

A request's key is the hash of all that decides its reply and of nothing else.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

FORMAT = 1
TEXT_TOKENS, MESSAGE_TOKENS = 4, 10
"""Characters that a token stands for at a guess; tokens that a message's frame costs at most."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `model` names the weights, `endpoint` who serves them."""

    teacher: str
    model: str
    endpoint: str
    messages: Sequence[dict[str, str]]
    max_new_tokens: int
    temperature: float | None
    """None leaves it to the provider."""
    sample: int

    def parameters(self) -> dict[str, float | None]:
        return {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature}

    def key(self) -> str:
        parts = [FORMAT, self.teacher, self.model, self.endpoint, list(self.messages), self.parameters(), self.sample]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def likely_tokens(self) -> int:
        """Input tokens at a guess."""
        return sum(len(m["content"]) // TEXT_TOKENS + MESSAGE_TOKENS for m in self.messages)

    def most_tokens(self) -> int:
        """Input tokens at most: a token stands for a byte or more."""
        return sum(len(m["content"].encode()) + MESSAGE_TOKENS for m in self.messages)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `finish` is `stop`, `length` (the limit cut it off) or the provider's own word."""

    text: str
    finish: str
    input_tokens: int
    output_tokens: int
    model: str = ""
    """What the service calls the model that replied; the journal does not keep it."""


NO_ROOM = "the question does not fit into the model's context"
"""How the reason of a refusal begins that is no fault of the service."""


class Refused(Exception):
    """This request will never be answered as it stands; the message is the reason."""


class Transient(Exception):
    """The same request may be answered later. `billed` says that it may cost all the same."""

    def __init__(self, reason: str, wait: float | None = None, billed: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.billed = wait, billed


class Client(Protocol):
    """One provider. Its methods raise `Refused`, `Transient`, or `TeacherError` where nothing at all can be asked."""

    async def ask(self, ask: Ask) -> Reply: ...

    async def close(self) -> None: ...
