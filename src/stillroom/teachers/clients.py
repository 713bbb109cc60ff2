"""Clients: OpenAI's (and whatever speaks its language) and Anthropic's, through their official libraries.

Their own retries are off: `running` retries. Keys come from the environment, and no text leaves here that holds one.
"""

import email.utils
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from stillroom.errors import TeacherError, UsageError
from stillroom.teachers.prices import HOSTS
from stillroom.teachers.requests import NO_ROOM, Ask, Refused, Reply, Transient

KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
TOO_LONG = re.compile(r"context.?length|maximum context|prompt is too long|too many tokens|input is too long", re.I)
NO_CREDIT = re.compile(r"insufficient_quota|exceeded your current quota|credit balance|billing", re.I)
PATHS = {"openai": "/chat/completions", "anthropic": "/v1/messages"}
LATER = (408, 409, 425, 429)
NO_TEMPERATURE = re.compile(
    r"\btemperature\b['`\"]*(?::| is (deprecated|not supported)| does not support| may only| cannot)"
    r"|unsupported (value|parameter): ['`\"]*temperature\b",
    re.I,
)
"""How providers say that a model takes no temperature, or not this one."""
WITH_TEMPERATURE = {"anthropic-version": "2023-06-01"}
"""The version that Anthropic's library sends by itself, 2026-10-21, takes a temperature from no model."""
SHORTEST_SECRET = 12
"""Letters. A shorter key is one that a local server is given for form's sake, and a word of many replies."""
MOST_TOKENS = 1 << 40
"""No reply has so many; the journal could not hold them."""
FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


def endpoint_of(teacher: str, base_url: str | None) -> str:
    """Who is asked. Raises `UsageError` for an address that is none, or that holds a password or a key."""
    url = (base_url or HOSTS[teacher]).rstrip("/")
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and url.isprintable()
        (parts.hostname or "").encode("idna")  # a ValueError where no name server takes it
        holds_secret = bool(parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        raise UsageError("the base URL is no address: expected something like http://127.0.0.1:8000/v1") from None
    if holds_secret:
        raise UsageError(
            "the base URL holds a user, a password or a query: addresses are recorded, keys must not be; "
            f"set {KEYS[teacher]}"
        )
    if not is_address or " " in url:
        raise UsageError("the base URL is no address: expected something like http://127.0.0.1:8000/v1")
    return url


def key_of(teacher: str, endpoint: str) -> str:
    """The key from the environment; a server that is not the provider's may need none."""
    key = os.environ.get(KEYS[teacher], "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise TeacherError(
            f"{KEYS[teacher]} holds a space, a line break or a letter that no key has: export the key anew, alone"
        )
    if not key and endpoint == HOSTS[teacher]:
        raise TeacherError(f"{KEYS[teacher]} is not set: export the key of your account in it, then run again")
    return key or "none"


def library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise TeacherError(
            f"teachers that are asked over a network need {name!r}: pip install -e '.[api]' in the checkout"
        ) from None


def refuse_unready(teacher: str, base_url: str | None) -> None:
    """Raise what asking would, before a word is sent: a package that is not installed, a key that is not set."""
    for name in ("aiohttp", teacher):
        library(name)
    key_of(teacher, endpoint_of(teacher, base_url))


class NotFound(TeacherError):
    """The service knows no such thing (404)."""


class ApiClient:
    """What both libraries share: how errors are told and judged. Connections are aiohttp's, through the libraries' own
    adapters: with those of httpx2 a request takes about twice the processor time."""

    def __init__(self, teacher: str, endpoint: str, timeout: float) -> None:
        self.teacher, self.endpoint = teacher, endpoint
        self._aiohttp = library("aiohttp")  # before the package, which looks for it once
        self.package = library(teacher)
        self._http_error = library("httpx2").HTTPError
        self._key = key_of(teacher, endpoint)
        self._secret = self._key if len(self._key) >= SHORTEST_SECRET else ""
        warnings.filterwarnings("ignore", "Sending a large body directly", ResourceWarning)  # one of megabytes is rare
        make = self.package.AsyncOpenAI if teacher == "openai" else self.package.AsyncAnthropic
        try:
            connections = self.package.DefaultAioHttpClient()
            self.api: Any = make(
                api_key=self._key, base_url=endpoint, max_retries=0, timeout=timeout, http_client=connections
            )
        except OSError as error:  # a file of certificates, or none to be opened
            raise TeacherError(
                f"no connection can be set up ({error.strerror or error}): look at SSL_CERT_FILE"
            ) from None
        except (ValueError, library("httpx2").InvalidURL) as error:
            raise TeacherError(
                f"no connection can be set up ({self.scrub(str(error))}): look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
            ) from None

    async def close(self) -> None:
        await self.api.close()

    async def ask(self, ask: Ask) -> Reply:
        """Through the library's `post`, which spares the typed layer: half of a request's time."""
        path, body = PATHS[self.teacher], BODIES[self.teacher](ask)
        options = {"headers": headers_of(ask)}
        message = await self.guard(
            lambda: self.api.post(path, cast_to=object, body=body, options=options), f"model {ask.model!r}"
        )
        return self.hidden(read_reply(self.teacher, message))

    def hidden(self, reply: Reply) -> Reply:
        """The reply without the key, should a server hand it back anywhere: replies are recorded, models named."""
        if not self._secret:
            return reply
        said = {name: getattr(reply, name).replace(self._secret, "[key]") for name in ("text", "finish", "model")}
        return replace(reply, **said)

    async def guard(self, call: Callable[[], Any], about: str) -> Any:
        """A call of the library about something, its errors told in our own three kinds."""
        try:
            return await call()
        except self.package.APIStatusError as error:
            found = self.judge(error.status_code, self.scrub(str(error)), dict(error.response.headers), about)
            if isinstance(found, Refused):  # a body in a form of its own is told, and stops nothing by its words
                found = refusal(error.status_code, self.scrub(what_was_said(error)))
            raise found from None
        except (self.package.APIConnectionError, self._http_error, self._aiohttp.ClientError) as error:
            raise self._unheard(error) from None
        except (ValueError, RecursionError, self.package.APIResponseValidationError):  # what JSON or a redirect held
            raise Transient(f"{self.endpoint} answered with something that is not JSON", billed=True) from None

    def _unheard(self, error: BaseException) -> Transient:
        """No whole answer came. What befell is told by its causes: the libraries' adapter calls a refused connection a
        time-out. Only a request that never left is not billed."""
        met = [error]
        while met[-1].__cause__ is not None:
            met.append(met[-1].__cause__)
        there = self._aiohttp
        unsent = (there.ClientConnectorError, there.ConnectionTimeoutError, there.ClientHttpProxyError)
        billed = not any(isinstance(each, unsent) for each in met)
        if any(isinstance(each, TimeoutError) for each in met):
            return Transient(f"{self.endpoint} did not answer in time", billed=billed)
        theirs = next((each for each in met if isinstance(each, self._aiohttp.ClientError)), met[-1])
        cause = self.scrub(f"{type(theirs).__name__}: {theirs}")
        return Transient(f"{self.endpoint} cannot be reached, or hung up ({cause})", billed=billed)

    def scrub(self, text: str) -> str:
        return " ".join((text.replace(self._secret, "[key]") if self._secret else text).split())[:300]

    def judge(self, status: int, text: str, headers: dict[str, str], about: str) -> Exception:
        """Which of the three kinds an HTTP status is."""
        if hopeless := self._hopeless(status, text, about):
            return hopeless
        if status in LATER or status >= 500:
            return Transient(f"{self.endpoint} answered {status}", retry_after(headers))
        return refusal(status, text)

    def _hopeless(self, status: int, text: str, about: str) -> TeacherError | None:
        """What would befall every other request too."""
        if status in (401, 403):
            return TeacherError(
                f"{self.endpoint} refused the key ({status}): put a valid one into {KEYS[self.teacher]}, then run again"
            )
        if status == 402 or (status in (400, 403, 429) and NO_CREDIT.search(text)):
            return TeacherError(
                f"the account at {self.endpoint} has no credit left ({status}): add some, then run the same command; "
                "nothing that was answered is lost"
            )
        if status < 400 or status == 407:
            return TeacherError(
                f"{self.endpoint} answered {status}, as something between here and the service does: look at the base "
                "URL and at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
            )
        if status == 404:
            return NotFound(
                f"{self.endpoint} knows no {about}, or is no such service (404): look at the name, the key's account "
                "and the base URL"
            )
        if status in (400, 422) and NO_TEMPERATURE.search(text):
            return TeacherError(
                f"{self.endpoint} does not take this temperature for {about} ({text}): run with --temperature unset "
                "(in a recipe temperature: unset), which sends none; its replies are not greedy then"
            )
        return None


def refusal(status: int, text: str) -> Refused:
    return Refused(f"{NO_ROOM if TOO_LONG.search(text) else 'refused'} ({status}): {text}")


def what_was_said(error: Any) -> str:
    """The text of a library's error; openai's leaves out a body that is not in OpenAI's own form."""
    text = str(error)
    return f"{text} - {error.body}" if error.body and text == f"Error code: {error.status_code}" else text


def retry_after(headers: dict[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait, from `retry-after-ms` or from `retry-after` (seconds or a date)."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name, "")
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text) * unit
        if text and (date := email.utils.parsedate_tz(text)):
            return max(0.0, email.utils.mktime_tz(date) - now())
    return None


def openai_body(ask: Ask) -> dict[str, Any]:
    """OpenAI's own service wants `max_completion_tokens`; others may know `max_tokens` alone."""
    limit = "max_completion_tokens" if ask.endpoint == HOSTS["openai"] else "max_tokens"
    heat = {} if ask.temperature is None else {"temperature": ask.temperature}
    return {"model": ask.model, "messages": list(ask.messages), **heat, limit: ask.max_new_tokens}


def anthropic_body(ask: Ask) -> dict[str, Any]:
    system = "\n\n".join(m["content"] for m in ask.messages if m["role"] == "system")
    chat = [dict(m) for m in ask.messages if m["role"] != "system"]
    heat = {} if ask.temperature is None else {"temperature": ask.temperature}
    body = {"model": ask.model, "messages": chat, "max_tokens": ask.max_new_tokens, **heat}
    return {**body, "system": system} if system else body


def headers_of(ask: Ask) -> dict[str, str]:
    return WITH_TEMPERATURE if ask.teacher == "anthropic" and ask.temperature is not None else {}


BODIES: dict[str, Callable[[Ask], dict[str, Any]]] = {"openai": openai_body, "anthropic": anthropic_body}


def whole(text: str) -> str:
    """The text with `?` for halves of characters, which no file can hold: a length limit may cut one in two."""
    return text.encode(errors="replace").decode()


def read_reply(teacher: str, message: Any) -> Reply:
    """The library's message, or the same as plain data. Raises `Transient` where it lacks what a reply has."""
    data = message if isinstance(message, dict) else message.model_dump() if hasattr(message, "model_dump") else {}
    try:
        usage = data.get("usage") or {}
        if teacher == "openai":
            choice = data["choices"][0]
            text = choice["message"].get("content") or choice["message"].get("refusal") or ""
            tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
            reason = choice.get("finish_reason") or "stop"
        else:
            text = "".join(block["text"] for block in data["content"] if block.get("type") == "text")
            tokens = _count(usage, "input_tokens"), _count(usage, "output_tokens")
            reason = FINISHES.get(data.get("stop_reason") or "stop", data.get("stop_reason") or "stop")
        if not isinstance(text, str) or not isinstance(reason, str):
            raise TypeError("text and reason are texts")
        return Reply(whole(text), whole(reason), *tokens, str(data.get("model") or ""))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Transient("the reply is not in the form that the provider documents", billed=True) from None


def _count(usage: Mapping[str, Any], name: str) -> int:
    """A number of tokens. Raises `TypeError` for what is none."""
    count = usage.get(name) or 0
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < MOST_TOKENS:
        raise TypeError(f"{name} is no number of tokens")
    return count
