"""A running gateway, asked over its HTTP API by the command line."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import orjson
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

_SLICE = 500
_SLICE_BYTES = 8 * 1024 * 1024
_PATIENCE = 10
"""How often a slice is offered again to a gateway that is overloaded or away."""
_ASKS = 3
"""How often something is asked of a gateway that says that it will answer soon …"""
_SOON = 5.0
"""… within so many seconds."""
_SHOWN = 20
"""Refused lines that are shown one by one."""
LOOKED_AT = 256 * 1024
"""Bytes of a mail that came back, of which the gateway looks at no more."""


class GatewayError(Exception):
    """The gateway cannot be asked, or did not do what was asked; the sentence says why."""


@dataclass(slots=True)
class Tally:
    """What became of the lines of a file."""

    accepted: int = 0
    repeated: int = 0
    refused: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)
    """The first of those that were refused, with their faults."""

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "accepted": self.accepted,
            "repeated": self.repeated,
            "refused": self.refused,
            "faults": self.lines,
        }

    def sentence(self) -> str:
        """For people."""
        return f"{self.accepted} accepted, {self.repeated} known already, {self.refused} refused"


async def send_lines(stream: IO[bytes], size: int | None, url: str, key: str | None, console: Console) -> Tally:
    """Offer every line, in slices, again where the gateway asks for patience.

    Raises:
        GatewayError: the gateway is away, or does not know the key.
    """
    _check(url)
    tally = Tally()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("bytes sent", total=size)
        async with _session(key) as session:
            number = 0
            for lines in _slices(stream):
                wanted = [(number + offset + 1, line) for offset, line in enumerate(lines) if line.strip()]
                number += len(lines)
                if wanted:
                    await _offer(session, url, wanted, tally, console)
                progress.update(bar, advance=sum(map(len, lines)))
    return tally


def _slices(stream: IO[bytes]) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    held = 0
    for line in stream:
        lines.append(line)
        held += len(line)
        if len(lines) == _SLICE or held >= _SLICE_BYTES:
            yield lines
            lines, held = [], 0
    if lines:
        yield lines


async def _offer(
    session: aiohttp.ClientSession, url: str, lines: list[tuple[int, bytes]], tally: Tally, console: Console
) -> None:
    body = b"\n".join(line.rstrip(b"\r\n") for _, line in lines)
    for _ in range(_PATIENCE):
        address = f"{url.rstrip('/')}/v1/messages"
        status, answer, wait = await _ask(
            session, "POST", address, data=body, headers={"Content-Type": "application/x-ndjson"}
        )
        if status not in (429, 503):
            break
        await asyncio.sleep(1.0 if wait is None else wait)
    if "results" not in answer:
        reason = answer.get("detail") or answer.get("title") or "but not as a gateway does"
        raise GatewayError(f"{url} answered {status}: {reason}")
    for result in answer["results"]:
        line, _ = lines[result["index"]]
        match result["status"]:
            case 202:
                tally.accepted += 1
            case 200:
                tally.repeated += 1
            case _:
                tally.refused += 1
                if tally.refused == _SHOWN + 1:
                    console.print("… and more; their number comes last")
                errors = [error | {"problem": _in_file(error["problem"], line)} for error in result.get("errors") or ()]
                if len(tally.lines) < _SHOWN:
                    tally.lines.append({"line": line, "status": result["status"], "errors": errors})
                    for error in errors:
                        sentence = " ".join(filter(None, (f"line {line}:", error["path"], error["problem"])))
                        console.print(sentence, markup=False, soft_wrap=True)


def _in_file(problem: str, line: int) -> str:
    """What is wrong with a line, which a parser takes for the first."""
    return re.sub(r"line [0-9]+,? column ([0-9]+)(?: \(char [0-9]+\))?", rf"line {line}, column \1", problem)


async def explanation(message: str, source: str | None, url: str, key: str | None) -> dict[str, Any]:
    """What the gateway says of a message, or with ``source`` of a request.

    Raises:
        GatewayError: it is away, wants a key, or knows no such message.
    """
    _check(url)
    async with _session(key) as session:
        if source is not None:
            unknown = f"{source} has sent no request with the id {message}"
            found = await _found(session, url, "/v1/messages", unknown, "message", {"source": source, "id": message})
            message = found["message"]
        unknown = f"there is no message {message}; to name a request by its own id, say --source as well"
        return await _found(session, url, f"/v1/messages/{quote(message, safe='')}/explain", unknown, "text")


async def eligibility(user: str, query: Mapping[str, str], url: str, key: str | None) -> dict[str, Any]:
    """What the gateway says of whether a person may be contacted.

    Raises:
        GatewayError: it is away, wants a key, or does not understand the question.
    """
    _check(url)
    async with _session(key) as session:
        path = f"/v1/users/{quote(user, safe='')}/eligibility"
        return await _found(session, url, path, "no user is named", "text", query)


async def hand_over(mail: bytes, recipient: str | None, url: str, key: str | None) -> None:
    """Let the gateway take a mail that came back; ``recipient`` is the address that it was sent to.

    Raises:
        GatewayError: it is away, is busy, wants a key, or cannot take mails.
    """
    _check(url)
    older = f"{url} takes no mails that came back: is it an older version?"
    query = {"recipient": recipient} if recipient else None
    async with _session(key) as session:
        await _found(session, url, "/v1/bounces", older, "receipts", query, method="POST", data=mail, headers=_AS_MAIL)


_AS_MAIL = {"Content-Type": "message/rfc822"}


async def report(query: Mapping[str, str], url: str, key: str | None) -> dict[str, Any]:
    """What the gateway says of what came of many messages.

    Raises:
        GatewayError: it is away, wants a key, or does not understand the question.
    """
    _check(url)
    async with _session(key) as session:
        older = f"{url} makes no reports: is it an older version?"
        return await _found(session, url, "/v1/report", older, "total", query)


async def webhooks(url: str, key: str | None) -> dict[str, Any]:
    """How it stands with the webhooks, each in a sentence too.

    Raises:
        GatewayError: it is away, or wants a key.
    """
    _check(url)
    async with _session(key) as session:
        found = await _found(session, url, "/v1/webhooks", "this gateway knows no webhooks", "webhooks")
    return found | {"text": [_of_webhook(webhook) for webhook in found["webhooks"]] or ["No webhook is configured."]}


async def enable_webhook(name: str, url: str, key: str | None, *, given_up: bool) -> dict[str, Any]:
    """Have events sent to a webhook again; with ``given_up`` those too that it never took.

    Raises:
        GatewayError: it is away, wants a key, or knows no such webhook.
    """
    _check(url)
    path = f"/v1/webhooks/{quote(name, safe='')}/enable"
    query = {"given_up": "true"} if given_up else None
    async with _session(key) as session:
        found = await _found(session, url, path, f"no webhook {name} is configured", "waiting", query, method="POST")
    return found | {"text": [_of_webhook(found)]}


def _of_webhook(found: Mapping[str, Any]) -> str:
    parts = [f"{found['waiting']} waiting" + (f" since {found['oldest']}" if found["oldest"] else "")]
    parts.append(f"{found['given_up']} given up")
    parts += [f"the last of them {lost['event']} ({lost['error']})" for lost in found["newest"][:1]]
    stands = f"disabled since {found['disabled_at']} ({found['reason']})" if found["disabled_at"] else "enabled"
    return f"{found['name']} at {found['origin']} is {stands}: {', '.join(parts)}.{_last_call(found)}"


def _last_call(found: Mapping[str, Any]) -> str:
    """Why what waits was not taken yet, and when it is sent again; older gateways do not say."""
    if not found.get("failed_at"):
        return ""
    hint = f" ({found['hint']})" if found["hint"] else ""
    then = f", the next call is due at {found['next_call']}" if found["next_call"] else ""
    return f" The last call that failed was at {found['failed_at']}: {found['error']}{hint}{then}."


async def _found(
    session: aiohttp.ClientSession,
    base: str,
    path: str,
    unknown: str,
    holds: str,
    query: Mapping[str, str] | None = None,
    method: str = "GET",
    **more: Any,
) -> dict[str, Any]:
    """What a gateway answers.

    Args:
        session: with the key.
        base: the gateway's address.
        path: what is asked for.
        unknown: what a 404 means.
        holds: what the answer must hold, or it is not a gateway's.
        query: of the address.
        method: of HTTP.
        more: as aiohttp takes it.
    """
    address = URL(base.rstrip("/") + path, encoded=True)
    address = address.with_query(query) if query else address
    for again in reversed(range(_ASKS)):
        status, found, wait = await _ask(session, method, str(address), **more)
        if status not in (429, 503) or method != "GET" or wait is None or wait > _SOON or not again:
            break
        await asyncio.sleep(wait)
    match status:
        case 200 if holds in found:
            return found
        case 200:
            raise GatewayError(f"{base} answered 200, but not as a gateway does")
        case 401:
            raise GatewayError(f"{base} asks for a key that it knows: give --key, or set DECORUM_KEY")
        case 404 if "detail" in found:
            raise GatewayError(unknown)
        case _:
            faults = [f"{error['path']} {error['problem']}" for error in found.get("errors", ())]
            raise GatewayError("; ".join(faults) or found.get("detail") or f"{base} answered {status}")


def _check(url: str) -> None:
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise GatewayError("a gateway's address holds no name and no password: give --key, or set DECORUM_KEY")
    if not url.startswith(("http://", "https://")):
        raise GatewayError(f"{url} is not a gateway's address: write http:// in front, http://{url}")


def _session(key: str | None) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=120, connect=5))


async def _ask(
    session: aiohttp.ClientSession, method: str, url: str, **more: Any
) -> tuple[int, dict[str, Any], float | None]:
    """Status, JSON and the seconds to wait before asking again, where it says that."""
    try:
        async with session.request(method, URL(url, encoded=True), **more) as response:
            body = await response.read()
            wait = response.headers.get("Retry-After", "")
            try:
                answer = orjson.loads(body)
            except orjson.JSONDecodeError:
                answer = None
            if not isinstance(answer, dict):
                raise GatewayError(f"{url} answered {response.status}, but not as a gateway does")
            return response.status, answer, float(wait) if wait.isdecimal() else None
    except aiohttp.ClientConnectorDNSError as error:
        raise GatewayError(f"{url} cannot be asked: {error.host} is not known here; is the name right?") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise GatewayError(f"{url} cannot be asked: its certificate is not one to trust") from error
    except aiohttp.ClientConnectorSSLError as error:
        raise GatewayError(f"{url} cannot be asked: it speaks no TLS; write http:// instead of https://") from error
    except aiohttp.ClientConnectorError as error:
        there = f"{error.host}:{error.port}"
        raise GatewayError(f"nothing answers at {there}: is the gateway running, and is this its address?") from error
    except TimeoutError as error:
        raise GatewayError(f"{url} does not answer in time: is the gateway running?") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise GatewayError(f"{url} cannot be asked: {error or type(error).__name__}; is it a gateway?") from error
