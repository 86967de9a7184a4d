"""How the API writes JSON."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from gateway.message import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.intake import Fault

JSON = "application/json"


def answer_json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A document as an answer; its instants in RFC 3339."""
    body = orjson.dumps(document, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)
    return web.Response(body=body, status=status, content_type=JSON, headers=headers)


def errors(faults: Iterable[Fault]) -> list[dict[str, str]]:
    """What is wrong with a request, as a problem lists it."""
    return [{"path": fault.path, "problem": fault.problem} for fault in faults]


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
