"""How people say no to what they were sent: with one click (RFC 8058), or on a page."""

from __future__ import annotations

from email import message_from_bytes, policy
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from gateway.ids import ID
from gateway.message import OptOut
from gateway.web.bodies import Body, Room
from gateway.web.people import settled
from gateway.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.decide import Judge
    from gateway.metrics import Metrics
    from gateway.store import Store

_FIELD, _VALUE = "List-Unsubscribe", "One-Click"
_LARGEST = 4096
_PATIENCE = 10.0
"""Seconds that a form may take to come."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Unsubscribe</title>
<style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 15vh auto; padding: 0 1rem; }}
button {{ font: inherit; padding: .5rem 1.5rem; }}
</style>
</head>
<body>
<main>
<h1>Unsubscribe</h1>
<p>You will get no more messages of this kind.</p>
<form method="post"><button name="{_FIELD}" value="{_VALUE}">Unsubscribe</button></form>
</main>
</body>
</html>
"""


def unsubscribe_url(public_url: str, attempt: str) -> str:
    """The one-click link in what an attempt sends. Contacts are kept longest: by them it outlives the message."""
    return f"{public_url}/u/{attempt}"


class Unsubscribe:
    """The links to unsubscribe that messages carry. Whoever follows one learns nothing: unknown ones are answered like known ones."""

    def __init__(self, store: Store, judge: Callable[[], Judge], metrics: Metrics, room: Room) -> None:
        """``judge``: the one in force now."""
        self._store = store
        self._judge = judge
        self._metrics = metrics
        self._room = room

    def routes(self) -> list[web.RouteDef]:
        """For the public listener."""
        return [web.get("/u/{attempt}", self._page), web.post("/u/{attempt}", self._unsubscribe)]

    async def _page(self, _: web.Request) -> web.Response:
        """A form, for people. A link that acts by being looked at would be followed by scanners of mail."""
        return web.Response(text=_PAGE, content_type="text/html", headers={"Content-Security-Policy": _POLICY})

    async def _unsubscribe(self, request: web.Request) -> web.Response:
        with Body(request, self._room, _PATIENCE) as body:
            form = await body.read(_LARGEST)
            if not _is_one_click(request.headers.get(hdrs.CONTENT_TYPE, ""), request.content_type, form):
                raise Problem("not_one_click", f"Send the form {_FIELD}={_VALUE}, as RFC 8058 says")
        attempt = request.match_info["attempt"]
        known = await self._store.addressee(attempt) if ID.fullmatch(attempt) else None
        if known:
            person, no = known[0], OptOut(category=known[1])
            if await self._store.opt_out(person, no, "one_click", self._judge(), attempt):
                self._metrics.optouts.labels("one_click").inc()
            await settled(self._store, person)
        return web.Response(text="You have been unsubscribed.\n")


def _is_one_click(header: str, kind: str, body: bytes) -> bool:
    """Whether the body is the form of RFC 8058, in either of its two types."""
    match kind:
        case "application/x-www-form-urlencoded":
            try:
                return (_FIELD, _VALUE) in parse_qsl(body.decode("ascii"), max_num_fields=10)
            except ValueError:
                return False
        case "multipart/form-data":
            head = f"{hdrs.CONTENT_TYPE}: {header}\r\n\r\n".encode("utf-8", "surrogateescape")
            parts = message_from_bytes(head + body, policy=policy.compat32).walk()
            return any(
                part.get_param("name", header="content-disposition") == _FIELD
                and part.get_payload(decode=True) == _VALUE.encode()
                for part in parts
            )
        case _:
            return False
