"""What went wrong, as RFC 9457 tells it: every error that leaves a listener is made here."""

from __future__ import annotations

import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from aiohttp import hdrs, web

from gateway.headroom import NoRoom
from gateway.intake import Overloaded
from gateway.store import StoreNotOpen, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

log = structlog.get_logger()

KINDS: Mapping[str, tuple[int, str]] = {
    "not_json": (400, "The body is not JSON"),
    "bad_body": (400, "The body cannot be read"),
    "unreadable": (400, "The callback cannot be read"),
    "bad_query": (400, "The query cannot be understood"),
    "not_one_click": (400, "This is not a one-click unsubscribe"),
    "unauthorized": (401, "The API key is missing or unknown"),
    "forbidden": (403, "The API key lacks a scope"),
    "forged": (403, "The signature does not hold"),
    "not_found": (404, "There is no such thing"),
    "wrong_method": (405, "This method is not taken here"),
    "slow_body": (408, "The body did not come in time"),
    "conflict": (409, "The id was used before"),
    "too_late": (409, "It is too late for that"),
    "too_large": (413, "That is too large"),
    "wrong_content": (415, "This kind of content is not taken"),
    "malformed": (422, "The request has faults"),
    "overloaded": (429, "Too much at once"),
    "bug": (500, "The gateway made a mistake"),
    "no_room": (503, "There is no room for more at present"),
    "unavailable": (503, "The gateway cannot do this now"),
    "too_long": (504, "It took too long"),
}
"""By the last word of the problem's type: its status and title."""

_SOON = {"Retry-After": "5"}
_UNCHANGED = "Nothing was changed: ask again"
_UNSURE = "What was sent may have been accepted: send the same again, with the same ids"


class Problem(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        """``kind`` is one of ``KINDS``; ``members`` are added to the JSON."""
        super().__init__(kind)
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.members = members

    def response(self) -> web.Response:
        """As ``application/problem+json``."""
        status, title = KINDS[self.kind]
        return _response(f"urn:decorum:problem:{self.kind}", title, status, self.detail, self.headers, self.members)


def unavailable(detail: str) -> Problem:
    """Nothing is wrong with the request: the same may succeed in a moment."""
    return Problem("unavailable", detail, headers=_SOON)


def turned_away(error: Overloaded) -> Problem:
    """Nothing was accepted, and when to come again. A lack of room is no fault of who asks: 503, not 429."""
    after = {"Retry-After": str(max(1, round(error.retry_after)))}
    if isinstance(error, NoRoom):
        return Problem("no_room", f"Nothing was accepted: {error}. Try again later", headers=after)
    return Problem("overloaded", "Nothing was accepted: try again later", headers=after)


@web.middleware
async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong in a handler into a problem, and bugs into one that gives nothing away."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except StoreNotOpen:
        return unavailable("The gateway is starting, and has done nothing yet: ask again").response()
    except StoreUnavailable:
        reads = request.method in {hdrs.METH_GET, hdrs.METH_HEAD}
        return unavailable(f"The database cannot be asked. {_UNCHANGED if reads else _UNSURE}").response()
    except Overloaded as error:
        return turned_away(error).response()
    except web.HTTPException as error:
        return _of_aiohttp(request, error)
    except web.RequestPayloadError:
        return Problem("bad_body", "Its length or its chunks are not as its headers say").response()
    except ConnectionError:
        raise  # the client has left: there is nobody to tell
    except Exception as error:  # noqa: BLE001 - the last resort
        # Neither the error's sentence nor its frames' variables: they may hold what was sent.
        log.error(  # noqa: TRY400 - see above
            "http.bug",
            method=request.method,
            route=_route(request),
            error=type(error).__name__,
            traceback="".join(traceback.format_tb(error.__traceback__)),
        )
        return Problem("bug", "It has been logged. What was sent may have been accepted").response()


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> web.Response:
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"{request.method} is not taken here; {allowed} may be"
            return Problem("wrong_method", detail, headers={"Allow": allowed}).response()
        case web.HTTPNotFound():
            return Problem("not_found", "Nothing is at this address").response()
        case _:
            return _response("about:blank", HTTPStatus(error.status).phrase, error.status, error.reason, None, {})


def _response(
    kind: str, title: str, status: int, detail: str, headers: Mapping[str, str] | None, members: Mapping[str, Any]
) -> web.Response:
    document = {"type": kind, "title": title, "status": status, "detail": detail, **members}
    return web.Response(
        body=orjson.dumps(document), status=status, content_type="application/problem+json", headers=headers
    )


def _route(request: web.Request) -> str:
    """The route's pattern, which holds nothing of what was sent."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else ""
