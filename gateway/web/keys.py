"""Who asks, and may they?"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import hdrs

from gateway.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from gateway.config import Key

SCOPES = frozenset({"send", "read", "admin", "events", "priority", "bounces"})


@dataclass(frozen=True, slots=True)
class Caller:
    """A service, as its key names it."""

    name: str
    scopes: frozenset[str]


LOCAL = Caller("local", SCOPES)
"""Where no keys are configured, which only a loopback address allows: everybody."""


class Keys:
    """Those that are configured."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys

    def caller(self, request: web.Request, scope: str) -> Caller:
        """Whose key the request carries.

        Raises:
            Problem: nobody's, or one without the scope.
        """
        if not self._keys:
            return LOCAL
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise _unauthorized("Send Authorization: Bearer and the key", "")
        digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).hexdigest()
        # Every key is compared: how long it takes tells nothing.
        found = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        if not found:
            raise _unauthorized("This key is not configured here", ', error="invalid_token"')
        if scope not in found[0].scopes:
            challenge = {"WWW-Authenticate": f'Bearer realm="decorum", error="insufficient_scope", scope="{scope}"'}
            raise Problem("forbidden", f"The key {found[0].name!r} needs the scope {scope}", headers=challenge)
        return Caller(found[0].name, found[0].scopes)


def _unauthorized(detail: str, more: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": f'Bearer realm="decorum"{more}'})
