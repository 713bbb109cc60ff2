"""The studio's door: who may come in, and from where.

On a loopback address everybody on this machine may; on any other a token is asked for. A page of another site may not
speak for its reader: its origin is refused, and so is a name that was made to point here.
"""

import asyncio
import hmac
import ipaddress
import logging
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stillroom.errors import UsageError

COOKIE = "stillroom_token"
PLAIN = re.compile(r"[A-Za-z0-9._~-]+")
"""What an address and a cookie carry as it is."""
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def admission(token: str | None, host: str) -> str | None:
    """What visitors must know: this token, or one that is made up where the address is not loopback; else nothing.

    Raises `UsageError` for a token that would not come through an address and a cookie as it is.
    """
    if not token:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if not PLAIN.fullmatch(token):
        raise UsageError(
            "the token (--token or STILLROOM_TOKEN) holds something that an address or a cookie would change: make it "
            "of letters without accents, digits and -._~ alone, or leave it out to have one made up"
        )
    return token


def gated(app: App, token: str | None) -> App:
    """The page behind its door; without a token it is for a loopback address, and answers to no other name."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = _refusal(headers, token)
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if refused is not None:
            await _plain(send, 403, refused)
        elif token is None or _holds(headers, token):
            await app(scope, receive, send)
        elif hmac.compare_digest(asked.encode(), token.encode()):
            cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
            await _plain(send, 303, "come in", [(b"location", b"/"), (b"set-cookie", cookie.encode())])
        else:
            await _plain(send, 401, "A token is needed: open the address that `stillroom studio` printed.")

    return door


def _refusal(headers: dict[str, str], token: str | None) -> str | None:
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        name, site = urlsplit(f"//{host}").hostname or "", urlsplit(origin or "").netloc
    except ValueError:
        return "The Host or the Origin of this request is no address."
    if token is None and not is_loopback(name):
        return "This studio answers to loopback addresses alone, such as http://127.0.0.1."
    if origin is not None and site != host:
        return "A page of another site may not speak with the studio."
    return None


def _holds(headers: dict[str, str], token: str) -> bool:
    """By its cookie, however odd those of others on this host are, or by what a program sends."""
    named = [part.strip().partition("=") for part in headers.get("cookie", "").split(";")]
    shown = [value for name, _, value in named if name == COOKIE]
    shown.append(headers.get("authorization", "").removeprefix("Bearer "))
    return any(hmac.compare_digest(own.encode(), token.encode()) for own in shown)


async def _plain(send: Send, status: int, text: str, more: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def bound(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0 takes a free one. Raises `UsageError` where it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except UnicodeError:
        raise UsageError(f"--host {host!r} is no address: give a name or a number, such as 127.0.0.1") from None
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be had ({error.strerror or error}): give another --port") from None


def serve(app: App, at: socket.socket) -> None:
    """Until Ctrl-C or SIGTERM. Pages that are still open are left without an answer, which is no error to tell of."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
    logging.getLogger("uvicorn.error").addFilter(_no_cancellation)
    uvicorn.Server(config).run([at])


def _no_cancellation(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
