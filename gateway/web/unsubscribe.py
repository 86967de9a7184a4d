"""How people say no to what they were sent: with one click (RFC 8058), or on a page."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import compat32
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from gateway.ids import ID
from gateway.languages import spoken_to
from gateway.message import UNSUBSCRIBABLE, OptOut
from gateway.store import StoreUnavailable
from gateway.web.bodies import Body, Room
from gateway.web.pages import Choice, Pages, Shown
from gateway.web.people import settled
from gateway.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from gateway.config import Policy
    from gateway.decide import Judge
    from gateway.languages import Language
    from gateway.metrics import Metrics
    from gateway.store import Addressee, Store
    from gateway.web.pages import Notice

ONE_CLICK, PAGE = "one_click", "page"
_WAYS = (ONE_CLICK, PAGE)
"""How it is recorded that it was said."""
_LOOK = "look"
"""What is only looked at says nothing."""

_ONE_CLICK = ("List-Unsubscribe", "One-Click")
"""What mail programs send, by RFC 8058."""
_NO, _YES, _BACK = "no", "yes", "back"
"""What the page's form says, and what is said of a yes once it is done."""
_LARGEST = 4096
_PATIENCE = 10.0
"""Seconds that a form may take to come."""
NO_NAME: Mapping[Language, str] = MappingProxyType({})


def unsubscribe_url(public_url: str, attempt: str) -> str:
    """The one-click link in what an attempt sends. Contacts are kept longest: by them it outlives the message."""
    return f"{public_url}/u/{attempt}"


class Unsubscribe:
    """The links to unsubscribe that messages carry. Of one that nobody has it is said that it does not work."""

    def __init__(
        self,
        store: Store,
        judge: Callable[[], Judge],
        metrics: Metrics,
        room: Room,
        name: Mapping[Language, str] = NO_NAME,
    ) -> None:
        """``judge``: the one in force now; ``name``: whom messages are from."""
        self._store = store
        self._judge = judge
        self._metrics = metrics
        self._room = room
        self._name = name
        self._pages = Pages()

    def routes(self) -> list[web.RouteDef]:
        """For the public listener."""
        return [web.get("/u/{attempt}", self._look), web.post("/u/{attempt}", self._act)]

    async def _look(self, request: web.Request) -> web.Response:
        """The page, as things stand. It changes nothing: scanners of mail follow every link that they find."""
        try:
            known = await self._known(request)
        except StoreUnavailable:
            known = None
        else:
            if known is None:
                return self._dead(request, _LOOK)
        said = request.query.get("said", "")
        left = _left(known, said)
        return self._page(request, known, left, "back" if said == _BACK and not left else None)

    async def _act(self, request: web.Request) -> web.Response:
        """What a form says, done before it is answered."""
        with Body(request, self._room, _PATIENCE) as body:
            form = _fields(request.headers.get(hdrs.CONTENT_TYPE, ""), request.content_type, await body.read(_LARGEST))
        clicked = _ONE_CLICK in form
        said, choice = (_NO, Choice.KIND) if clicked else _said(form)
        via = ONE_CLICK if clicked else PAGE
        try:
            if (known := await self._known(request)) is None:
                return self._dead(request, via)
            await (self._no(request, known, choice, via) if said == _NO else self._yes(known, choice))
        except StoreUnavailable:
            if clicked:
                raise
            page = self._page(request, None, choice if said == _YES else None, "failed")
            page.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
            page.headers[hdrs.RETRY_AFTER] = "5"
            return page
        if clicked:
            return web.Response(text="You have been unsubscribed.\n")
        # By a query alone, whatever path the world reaches us by. To be shown, never to be believed.
        then = {hdrs.LOCATION: f"?said={choice if said == _NO else _BACK}"}
        return web.Response(status=HTTPStatus.SEE_OTHER, headers=then)

    async def _known(self, request: web.Request) -> Addressee | None:
        attempt = request.match_info["attempt"]
        return await self._store.addressee(attempt) if ID.fullmatch(attempt) else None

    async def _no(self, request: web.Request, known: Addressee, choice: Choice, via: str) -> None:
        """Once this is done, nothing that was begun before is handed over any more."""
        judge = self._judge()
        for no in _noes(choice, known.category, judge.policy):
            await self._store.opt_out(known.person, no, via, judge, request.match_info["attempt"])
        self._metrics.optouts.labels(via).inc()
        await settled(self._store, known.person)

    async def _yes(self, known: Addressee, choice: Choice) -> None:
        """Take back what was said here, and nothing else: whoever has the link may not be who said the rest."""
        for no in _noes(choice, known.category, self._judge().policy):
            await self._store.opt_in(known.person, None, no, _WAYS)

    def _dead(self, request: web.Request, via: str) -> web.Response:
        """Nobody has that link: whoever followed it still gets messages, and must learn that."""
        self._metrics.dead_links.labels(via).inc()
        language = spoken_to(_accepted(request))
        if via == ONE_CLICK:
            text = self._pages.dead(language)
            return web.Response(text=text, status=HTTPStatus.NOT_FOUND, headers={hdrs.CONTENT_LANGUAGE: language})
        return self._answer(Shown(language, self._name.get(language), dead=True), HTTPStatus.NOT_FOUND)

    def _page(
        self, request: web.Request, known: Addressee | None, left: Choice | None, notice: Notice | None
    ) -> web.Response:
        language = spoken_to(_accepted(request), known.locales if known else ())
        category = self._judge().policy.categories.get(known.category) if known else None
        shown = Shown(
            language=language,
            name=self._name.get(language),
            title=category.title.get(language) if category else None,
            left=left,
            again=left is not None and (known is None or _how(known, left) in _WAYS),
            notice=notice,
        )
        return self._answer(shown)

    def _answer(self, shown: Shown, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
        headers = {hdrs.CONTENT_LANGUAGE: shown.language, "Content-Security-Policy": self._pages.security}
        text = self._pages.unsubscribe(shown)
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)


def _accepted(request: web.Request) -> str:
    return ", ".join(request.headers.getall(hdrs.ACCEPT_LANGUAGE, ()))


def _noes(choice: Choice, category: str, policy: Policy) -> tuple[OptOut, ...]:
    """What is said by a choice; all is at the least what the message was of."""
    kind, rest = OptOut(category=category), OptOut(category=UNSUBSCRIBABLE)
    if choice is Choice.KIND:
        return (kind,)
    return (kind, rest) if policy.needs(category) else (rest,)


def _left(known: Addressee | None, said: str) -> Choice | None:
    """What somebody has left; while that cannot be looked up, what the query says."""
    if known is None:
        return Choice(said) if said in tuple(Choice) else None
    return next((choice for choice in (Choice.ALL, Choice.KIND) if _how(known, choice)), None)


def _how(known: Addressee, left: Choice) -> str | None:
    """In which way they said so; None: they did not."""
    return known.noes.get(known.category if left is Choice.KIND else UNSUBSCRIBABLE)


def _said(form: Collection[tuple[str, str]]) -> tuple[str, Choice]:
    """What the page's form says.

    Raises:
        Problem: it is no form of ours.
    """
    for said in (_NO, _YES):
        for choice in Choice:
            if (said, choice) in form:
                return said, choice
    raise Problem("not_one_click", f"Send the form {'='.join(_ONE_CLICK)}, as RFC 8058 says")


def _fields(header: str, kind: str, body: bytes) -> Collection[tuple[str, str]]:
    """Those of a form, in either of the two types of RFC 8058; none where it is no form."""
    match kind:
        case "application/x-www-form-urlencoded":
            try:
                return parse_qsl(body.decode("ascii"), max_num_fields=10)
            except ValueError:
                return ()
        case "multipart/form-data":
            head = f"{hdrs.CONTENT_TYPE}: {header}\r\n\r\n".encode("utf-8", "surrogateescape")
            parts = message_from_bytes(head + body, policy=compat32).walk()
            return [
                (str(part.get_param("name", header="content-disposition")), value.decode("ascii", "replace"))
                for part in parts
                if isinstance(value := part.get_payload(decode=True), bytes)
            ]
        case _:
            return ()
