"""The HTTP side keeps its promises: real listeners, a real store, and whatever clients may send."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import shutil
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs
from yarl import URL

import providers
from gateway import config
from gateway.client import GatewayError, eligibility, explanation
from gateway.decide import Judge
from gateway.headroom import Headroom, Space
from gateway.ids import new_id
from gateway.intake import Fault, Intake
from gateway.message import MessageState
from gateway.metrics import Metrics
from gateway.outcome import accepted
from gateway.reports import Reports
from gateway.sentences import of_message
from gateway.store import Claimed, ParkedInput, Settlement, Store, engine_of
from gateway.store.migrate import migrate
from gateway.web import Limits, private_app, public_app, runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

TOKEN = "a-made-up-token"
PUBLIC = "https://m.example.com/gateway"
NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PROBLEM = "application/problem+json"

YAML = """
store: sqlite:///PATH
http: {private: "127.0.0.1:0"}
KEYS
providers:
  inbox: {kind: inbox}
  text: {kind: twilio_sms, account_sid: AC1, auth_token: a-made-up-token, sender: "+15005550006"}
  silent: {kind: http, channels: [sms], url: "https://vendor.example", body: {text: "{text}"}}
  given:
    kind: http
    channels: [sms]
    url: https://vendor.example
    body: {ref: "{attempt}"}
    callbacks:
      signature: {header: X-Sig, secret: a-made-up-token}
      each: events
      fields: {status: type, attempt: ref}
      statuses: {arrived: delivered}
routes: {sms: [text], push: [inbox], email: [inbox]}
policy:
  timezone: UTC
  categories:
    code: {priority: critical, caps: exempt, quiet_hours: exempt, expires_after: 5m}
    news: {priority: normal}
  caps: [{name: daily, limit: 1, per: 24h}]
"""


def key_of(name: str, *scopes: str) -> str:
    digest = hashlib.sha256(f"key of {name}".encode()).hexdigest()
    return f"{{name: {name}, sha256: {digest}, scopes: [{', '.join(scopes)}]}}"


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key of {name}"}


def request(**fields: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "user": "u1",
        "category": "news",
        "to": {"phone": "+14155552671"},
        "content": {"sms": {"text": "hello"}},
    } | fields


class Gateway:
    """Both listeners on a store of their own, and a client for each."""

    def __init__(
        self,
        path: Path,
        *,
        keys: tuple[str, ...] = (),
        limits: Limits | None = None,
        span: float = 10.0,
        callback_seconds: float = 5.0,
        space: Callable[[], Space] | None = None,
        starting: bool = False,
    ) -> None:
        text = YAML.replace("PATH", str(path)).replace("KEYS", f"keys: [{', '.join(keys)}]" if keys else "")
        self.config = config.parse(text, {}, base=path.parent)
        self.store = Store(engine_of(self.config.store, lambda: time.time_ns() // 1000))
        self.metrics = Metrics("test")
        self.judge = Judge(
            policy=self.config.policy,
            number=7,
            routes=self.config.routes,
            patience=dict.fromkeys(self.config.providers, timedelta()),
            span=timedelta(seconds=span),
        )
        self.parts: Mapping[str, str] = {"store": "ok"}
        self.notices = 0
        self.broken = False
        self.starting = starting
        self.secret = "of +14155552671"
        self.limits = limits
        self.callback_seconds = callback_seconds
        self.headroom = Headroom(space, count().__next__)
        self.noticed: Callable[[], object] = int
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if not self.starting:
            await self.store.open()
        self._stack.push_async_callback(self.store.close)
        self.private = await self._listen(
            private_app(
                self.store,
                Intake(self.store, lambda: self.judge, self.metrics, lambda _: self._notice(), headroom=self.headroom),
                Reports(self.store, self._judge, self.metrics, lambda: self.config.retention.contacts, self.headroom),
                self._judge,
                self.config,
                self.metrics,
                lambda: self.parts,
                self._notice,
                self.limits,
            )
        )
        self.public = await self._listen(
            public_app(
                self.store,
                {name: providers.build(name, settings) for name, settings in self.config.providers.items()},
                self._judge,
                PUBLIC,
                self.metrics,
                self.limits,
                self.callback_seconds,
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _listen(self, app: web.Application) -> aiohttp.ClientSession:
        served = runner(app, shutdown_timeout=0.1)
        await served.setup()
        self._stack.push_async_callback(served.cleanup)
        site = web.TCPSite(served, "127.0.0.1", 0)
        await site.start()
        port = served.addresses[0][1]
        session = aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(total=15))
        return await self._stack.enter_async_context(session)

    def _notice(self) -> None:
        self.notices += 1
        self.noticed()

    def _judge(self) -> Judge:
        if self.broken:
            raise RuntimeError(self.secret)
        return self.judge

    async def send(self, **fields: Any) -> str:
        async with self.private.post("/v1/messages", json=request(**fields)) as response:
            assert response.status == 202, await response.text()
            return str((await response.json())["message"])

    async def claim(self, message: str) -> Claimed:
        """Let a worker begin to send it."""
        view = await self.store.view(message)
        assert view
        pair = (view.message.priority, view.message.channels[0])
        leases, _ = await self.store.lease([(*pair, 100)], timedelta(seconds=30))
        lease = next(lease for lease in leases if lease.message.id == message)
        (claimed,) = await self.store.claim([lease], self.judge, [new_id()])
        assert isinstance(claimed, Claimed), claimed
        return claimed

    async def settle(self, claimed: Claimed) -> None:
        await self.store.settle([Settlement(claimed, accepted("SM1"))], self.judge)

    async def decide(self, message: str) -> object:
        """Let a worker look at it, and hold it."""
        view = await self.store.view(message)
        assert view
        leases, _ = await self.store.lease(
            [(view.message.priority, view.message.channels[0], 100)], timedelta(seconds=30)
        )
        return await self.store.claim(leases, self.judge, [new_id() for _ in leases])


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("web") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def start(empty_database: Path, tmp_path: Path) -> AsyncIterator[Any]:
    shutil.copy(empty_database, tmp_path / "web.db")
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> Gateway:
            return await stack.enter_async_context(Gateway(tmp_path / "web.db", **options))

        yield begin


@pytest.fixture
async def gateway(start: Any) -> Gateway:
    return await start()  # type: ignore[no-any-return]


async def problem(response: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    """Its JSON, once it is seen to be in the form that every error has."""
    text = await response.text()
    assert (response.status, response.content_type) == (status, PROBLEM), text
    document: dict[str, Any] = orjson.loads(text)
    assert document["status"] == status
    assert document["type"]
    assert document["title"]
    assert document["detail"]
    return document


# ---------------------------------------------------------------------------------------------------------- one request


async def test_one_is_accepted_with_its_place(gateway: Gateway) -> None:
    async with gateway.private.post("/v1/messages", json=request()) as response:
        answer = await response.json()
        assert response.status == 202
    assert answer == {"message": answer["message"], "id": "r1", "state": "accepted"}
    assert response.headers["Location"] == f"/v1/messages/{answer['message']}"
    assert gateway.notices == 1
    async with gateway.private.get(response.headers["Location"]) as found:
        document = await found.json()
    assert (document["source"], document["state"], document["due_at"] is not None) == ("local", "waiting", True)


async def test_a_repeat_gets_the_present_state_and_another_body_a_conflict(gateway: Gateway) -> None:
    message = await gateway.send()
    async with gateway.private.post("/v1/messages", json=request()) as response:
        assert response.status == 200
        assert await response.json() == {"message": message, "id": "r1", "state": "waiting"}
    async with gateway.private.post("/v1/messages", json=request(user="u2")) as response:
        document = await problem(response, 409)
    assert (document["message"], document["id"]) == (message, "r1")
    assert gateway.notices == 1


async def test_all_faults_are_told_at_once(gateway: Gateway) -> None:
    body = request(to={"phone": "none"}, locale=3, colour="red", content={"sms": {"text": ""}}) | {"id": ""}
    async with gateway.private.post("/v1/messages", json=body) as response:
        document = await problem(response, 422)
    assert {error["path"] for error in document["errors"]} == {"id", "to.phone", "locale", "colour", "content.sms.text"}
    assert all(error["problem"] for error in document["errors"])


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"id": "x" * 10_000}, "id"),
        ({"id": 7}, "id"),
        ({"id": "a\x00b"}, "id"),
        ({"user": None}, "user"),
        ({"user": ["u1"]}, "user"),
        ({"category": "unheard-of"}, "category"),
        ({"category": {"news": 1}}, "category"),
        ({"to": {"phone": "123"}}, "to.phone"),
        ({"to": {"phone": "+1415555267\x00"}}, "to.phone"),
        ({"to": {"email": "nobody"}}, "to.email"),
        ({"content": {"sms": {"text": "a\x00b"}}}, "content.sms.text"),
        ({"content": {"sms": "hello"}}, "content.sms"),
        ({"content": {}}, "content"),
        ({"channels": []}, "channels"),
        ({"channels": ["sms", "sms"]}, "channels"),
        ({"channels": ["pigeon"]}, "channels[0]"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": 1e300}, "expires_at"),
        ({"priority": "urgent"}, "priority"),
        ({"source": "another"}, "source"),
        ({"source": 5}, "source"),
        ({"labels": {"a": {"b": "c"}}}, "labels.a"),
    ],
)
async def test_a_malformed_request_is_named_by_its_path(gateway: Gateway, change: dict[str, Any], path: str) -> None:
    async with gateway.private.post("/v1/messages", json=request(**change)) as response:
        document = await problem(response, 422)
    assert {error["path"] for error in document["errors"]} >= {path}
    assert gateway.notices == 0


@pytest.mark.parametrize("body", [b'"text"', b"null", b"3", b"true"])
async def test_what_is_no_object_is_malformed(gateway: Gateway, body: bytes) -> None:
    async with gateway.private.post("/v1/messages", data=body, headers=JSON) as response:
        assert (await problem(response, 422))["errors"] == [{"path": "", "problem": "must be a JSON object"}]


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [
        (b"", 1, 1),
        (b'{"id": ', 1, 8),
        (b'{"id":\n  x}', 2, 3),
        (b'{"id": "\\ud800"}', 1, None),
        (b'{"id": "\xed\xa0\x80"}', 1, None),
        (b'{"id": "\x00"}', 1, None),
        (b"\xff\xfe{}", 1, None),
        (b"[" * 100_000, 1, None),
        (b'{"id": 1e999}', 1, None),
    ],
)
async def test_broken_json_is_told_with_its_position(
    gateway: Gateway, body: bytes, line: int, column: int | None
) -> None:
    async with gateway.private.post("/v1/messages", data=body, headers=JSON) as response:
        document = await problem(response, 400)
    assert document["line"] == line
    assert column in (None, document["column"])


async def test_deep_nesting_is_refused(gateway: Gateway) -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = {"a": deep}
    async with gateway.private.post("/v1/messages", json=request(labels=deep)) as response:
        assert "deep" in (await problem(response, 422))["errors"][0]["problem"]


async def test_a_key_that_is_written_twice_is_taken_once(gateway: Gateway) -> None:
    body = orjson.dumps(request())[:-1] + b',"user":"u9"}'
    async with gateway.private.post("/v1/messages", data=body, headers=JSON) as response:
        assert response.status == 202
        message = (await response.json())["message"]
    async with gateway.private.get(f"/v1/messages/{message}") as response:
        assert (await response.json())["user"] == "u9"


async def test_a_large_body_for_one_is_refused(gateway: Gateway) -> None:
    body = orjson.dumps(request(content={"email": {"subject": "s", "text": "x" * 1_000_000}}))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    for data in (body, pieces()):
        async with gateway.private.post("/v1/messages", data=data, headers=JSON) as response:
            await problem(response, 413)


@pytest.mark.parametrize(("many", "status"), [(2, 400), (3000, 413)])
async def test_lines_that_are_sent_as_json_are_told_their_content_type(
    gateway: Gateway, many: int, status: int
) -> None:
    data = ndjson(*(request(id=str(number)) for number in range(many)))
    async with gateway.private.post("/v1/messages", data=data, headers=JSON) as response:
        document = await problem(response, status)
    assert document["detail"].endswith(
        ". It looks like one request a line: send that as Content-Type application/x-ndjson"
    )


@pytest.mark.parametrize("body", [b'{"id": ', b'{\n"id": ', b"[{}\n{}]", b'"\n"', b"{\n" + b" " * 300_000])
async def test_json_that_is_broken_otherwise_is_not_taken_for_lines(gateway: Gateway, body: bytes) -> None:
    async with gateway.private.post("/v1/messages", data=body, headers=JSON) as response:
        document = await problem(response, 413 if len(body) > 256 * 1024 else 400)
    assert "Content-Type" not in document["detail"]


async def test_just_below_the_limit_is_taken(gateway: Gateway) -> None:
    body = orjson.dumps(request(content={"email": {"subject": "s", "text": "x"}}, to={"email": "a@example.com"}))
    async with gateway.private.post("/v1/messages", data=body.ljust(256 * 1024), headers=JSON) as response:
        assert response.status == 202


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/octet-stream", ""])
async def test_other_content_is_refused_with_the_list_of_what_is_taken(gateway: Gateway, kind: str) -> None:
    async with gateway.private.post("/v1/messages", data=b"{}", headers={"Content-Type": kind}) as response:
        document = await problem(response, 415)
    assert "application/json" in document["detail"]
    assert response.headers["Accept-Post"] == "application/json, application/x-ndjson"


@pytest.mark.parametrize("encoding", ["gzip", "identity", "zstd, br"])
async def test_compressed_bodies_are_refused(gateway: Gateway, encoding: str) -> None:
    async with gateway.private.post(
        "/v1/messages", data=b"{}", headers=JSON | {"Content-Encoding": encoding}
    ) as response:
        await problem(response, 415)


# -------------------------------------------------------------------------------------------------------- many requests


def ndjson(*items: Any) -> bytes:
    return b"\n".join(item if isinstance(item, bytes) else orjson.dumps(item) for item in items)


async def test_each_of_many_gets_its_own_answer(gateway: Gateway) -> None:
    known = await gateway.send(id="known")
    items = [
        request(id="new"),
        request(id="known"),
        request(id="known", user="another"),
        request(id="bad", category="unheard-of"),
        None,
        request(id="new"),
    ]
    async with gateway.private.post("/v1/messages", json=items) as response:
        assert response.status == 202
        results = (await response.json())["results"]
    assert [result["index"] for result in results] == [0, 1, 2, 3, 4, 5]
    assert [result["status"] for result in results] == [202, 200, 409, 422, 422, 200]
    assert results[0]["state"] == "accepted"
    assert results[1] == {"index": 1, "status": 200, "message": known, "id": "known", "state": "waiting"}
    assert results[2]["errors"][0]["path"] == "id"
    assert results[3]["id"] == "bad"
    assert results[3]["errors"][0]["path"] == "category"
    assert results[5]["message"] == results[0]["message"]


async def test_a_broken_line_in_the_middle_harms_no_other(gateway: Gateway) -> None:
    body = ndjson(request(id="a"), b"", b'{"id": ', b'{"id": "\\ud800"}', b"[]", request(id="b"), b"  ", b"")
    async with gateway.private.post("/v1/messages", data=body, headers=NDJSON) as response:
        assert response.status == 202
        results = (await response.json())["results"]
    assert [(result["index"], result["status"]) for result in results] == [
        (0, 202),
        (1, 422),
        (2, 422),
        (3, 422),
        (4, 202),
    ]
    assert ": line 3, column 7" in results[1]["errors"][0]["problem"], "empty lines are lines"
    assert gateway.notices == 1


@pytest.mark.parametrize("as_lines", [True, False])
async def test_an_item_that_is_too_large_is_refused_alone(gateway: Gateway, as_lines: bool) -> None:
    large = request(id="large", content={"email": {"subject": "s", "text": "x" * 300_000}})
    items = [request(id="a"), large, request(id="b")]
    data = ndjson(*items) if as_lines else orjson.dumps(items)
    async with gateway.private.post("/v1/messages", data=data, headers=NDJSON if as_lines else JSON) as response:
        assert response.status == 202
        results = (await response.json())["results"]
    assert [result["status"] for result in results] == [202, 413, 202]
    assert "262144" in results[1]["errors"][0]["problem"]


async def test_many_are_refused_as_a_whole_only_if_none_was_accepted(gateway: Gateway) -> None:
    async with gateway.private.post("/v1/messages", json=[request(category="x"), 1]) as response:
        document = await problem(response, 422)
    assert [result["status"] for result in document["results"]] == [422, 422]
    await gateway.send()
    async with gateway.private.post("/v1/messages", json=[request(category="x"), request()]) as response:
        assert response.status == 202


@pytest.mark.parametrize(("data", "headers"), [(b"[]", JSON), (b" [ ] ", JSON), (b"", NDJSON), (b"\n \r\n\n", NDJSON)])
async def test_an_empty_batch_is_malformed(gateway: Gateway, data: bytes, headers: dict[str, str]) -> None:
    async with gateway.private.post("/v1/messages", data=data, headers=headers) as response:
        assert (await problem(response, 422))["errors"]


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"[" + b"{}," * 10_000 + b"{}]", JSON),
        (b"{}\n" * 10_001, NDJSON),
        (b"\n" * 1_000_000, NDJSON),
        (b" " * (16 * 1024 * 1024 + 1), NDJSON),
        (b"[" + b" " * (16 * 1024 * 1024) + b"]", JSON),
    ],
)
async def test_a_batch_that_is_too_large_is_refused_whole(
    gateway: Gateway, data: bytes, headers: dict[str, str]
) -> None:
    async with gateway.private.post("/v1/messages", data=BytesIO(data), headers=headers) as response:
        await problem(response, 413)
    assert gateway.notices == 0


async def test_a_batch_of_several_slices_keeps_its_order(gateway: Gateway) -> None:
    ids = [f"r{number}" for number in range(450)]
    data = ndjson(*(request(id=name, user=name) for name in ids))
    async with gateway.private.post("/v1/messages", data=data, headers=NDJSON) as response:
        results = (await response.json())["results"]
    assert [(result["index"], result["id"]) for result in results] == list(enumerate(ids))
    assert {result["status"] for result in results} == {202}


# ------------------------------------------------------------------------------------------------------------- overload


async def upload(
    gateway: Gateway, headers: str, body: bytes = b""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request's head and a part of its body by hand, and return once the gateway waits for the rest."""
    url = gateway.private._base_url
    assert isinstance(url, URL)
    reader, writer = await asyncio.open_connection("127.0.0.1", url.port)
    head = ("POST /v1/messages HTTP/1.1", "Host: x", "Content-Type: application/json", "Expect: 100-continue", headers)
    writer.write("\r\n".join((*head, "", "")).encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    return reader, writer


async def head_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        return await reader.readuntil(b"\r\n\r\n")


async def test_a_slow_body_is_not_waited_for(start: Any) -> None:
    gateway = await start(limits=Limits(body_seconds=0.05))
    reader, writer = await upload(gateway, "Content-Length: 100", b'{"id"')
    assert (await head_of(reader)).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


async def test_a_torn_body_is_not_waited_for(start: Any) -> None:
    gateway = await start(limits=Limits(body_seconds=0.05))
    reader, writer = await upload(gateway, "Transfer-Encoding: chunked", b"nonsense\r\n")
    assert (await head_of(reader)).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_leaves_in_the_middle_is_no_bug(gateway: Gateway) -> None:
    with capture_logs() as logs:
        _, writer = await upload(gateway, "Content-Length: 100", b'{"id"')
        writer.close()
        await writer.wait_closed()
        await gateway.send()
    assert logs == []


async def test_more_than_can_be_held_is_refused_early(start: Any) -> None:
    gateway = await start(limits=Limits(requests=1))
    reader, writer = await upload(gateway, "Content-Length: 2")
    async with gateway.private.post("/v1/messages", json=request()) as response:
        await problem(response, 429)
        assert response.headers["Retry-After"] == "1"
    writer.write(b"[]")
    assert (await head_of(reader)).startswith(b"HTTP/1.1 422 ")
    await gateway.send()  # the place was given back
    writer.close()
    await writer.wait_closed()


async def test_memory_for_bodies_is_bounded(start: Any) -> None:
    gateway = await start(limits=Limits(memory=1000))
    for _ in range(3):  # what was taken is given back
        async with gateway.private.post("/v1/messages", json=request(id="x" * 2000)) as response:
            await problem(response, 429)
        async with gateway.private.put("/v1/users/u1", json={}) as response:
            assert response.status == 204
    await gateway.send()


async def test_without_room_nothing_is_accepted_and_a_no_still_counts(start: Any) -> None:
    gateway = await start(space=lambda: Space(9, 100))
    for data, headers in ((orjson.dumps(request()), JSON), (ndjson(request()), NDJSON)):
        async with gateway.private.post("/v1/messages", data=data, headers=headers) as response:
            document = await problem(response, 503)
            assert response.headers["Retry-After"] == "30"
            assert "9.0% of the disk is free" in document["detail"]
    assert await gateway.store.backlog() == (0, 0)
    told = gateway.metrics.registry.get_sample_value("gateway_requests_turned_away_total", {"via": "http"})
    assert told == 2
    async with gateway.private.post("/v1/optouts", json={"phone": "+14155552671"}) as response:
        assert response.status == 204, await response.text()


async def test_what_of_a_batch_there_is_no_room_for_is_said_of_each(start: Any) -> None:
    room = [50]
    gateway = await start(space=lambda: Space(room[0] << 30, 100 << 30))
    gateway.noticed = lambda: room.append(room.pop() - 41)
    ids = [f"r{number}" for number in range(450)]
    data = ndjson(*(request(id=name, user=name) for name in ids))
    async with gateway.private.post("/v1/messages", data=data, headers=NDJSON) as response:
        assert response.status == 202
        assert response.headers["Retry-After"] == "30"
        results = (await response.json())["results"]
    assert [result["index"] for result in results] == list(range(450))
    assert [result["status"] for result in results] == [202] * 200 + [503] * 250
    assert "9.0% of the disk" in results[-1]["errors"][0]["problem"]
    assert (await gateway.store.backlog())[0] == 200


async def test_without_its_store_the_gateway_asks_to_come_again(gateway: Gateway) -> None:
    await gateway.store.close()
    for answer in (
        gateway.private.post("/v1/messages", json=request()),
        gateway.private.post("/v1/messages", json=[request()]),
        gateway.private.get(f"/v1/messages/{new_id()}"),
        gateway.private.put("/v1/users/u1", json={}),
        gateway.public.post(f"/u/{new_id()}", data=b"List-Unsubscribe=One-Click", headers=FORM),
    ):
        async with answer as response:
            detail = (await problem(response, 503))["detail"]
            assert response.headers["Retry-After"] == "5"
            assert ("Nothing was changed: ask again" in detail) is (response.method == "GET")
            assert ("may have been accepted" in detail) is (response.method != "GET")


async def test_while_it_starts_it_says_so(start: Any) -> None:
    gateway = await start(starting=True)
    for answer in (
        gateway.private.post("/v1/messages", json=request()),
        gateway.private.get(f"/v1/messages/{new_id()}/explain"),
        gateway.private.put("/v1/users/u1", json={}),
    ):
        async with answer as response:
            assert (await problem(response, 503))["detail"].startswith("The gateway is starting")


@pytest.mark.parametrize(("after", "asked"), [("0", 3), ("60", 1), (None, 1)])
async def test_the_command_line_asks_again_where_the_gateway_will_soon_answer(after: str | None, asked: int) -> None:
    came: list[str] = []
    headers = {"Retry-After": after} if after else {}

    async def answer(asks: web.Request) -> web.Response:
        came.append(asks.path)
        well = len(came) > 3
        return web.json_response(
            {"text": []} if well else {"detail": "not yet"}, status=200 if well else 503, headers=headers
        )

    app = web.Application()
    app.add_routes([web.get("/{path:.*}", answer)])
    async with TestServer(app) as server:
        with pytest.raises(GatewayError, match="not yet"):
            await explanation("0" * 26, None, str(server.make_url("/")), None)
        assert len(came) == asked
        if asked == 3:
            assert await explanation("0" * 26, None, str(server.make_url("/")), None) == {"text": []}


async def test_while_draining_nothing_new_is_accepted(gateway: Gateway) -> None:
    gateway.parts = {"store": "ok", "gateway": "draining"}
    async with gateway.private.post("/v1/messages", json=request()) as response:
        await problem(response, 503)
        assert response.headers["Retry-After"] == "5"
    async with gateway.private.get("/v1/messages?id=r1") as response:
        await problem(response, 404)


# ------------------------------------------------------------------------------------------- what became of a message


async def test_a_message_is_found_by_its_request(gateway: Gateway) -> None:
    message = await gateway.send()
    for query in ("source=local&id=r1", "id=r1"):
        async with gateway.private.get(f"/v1/messages?{query}") as response:
            assert (await response.json())["message"] == message
    for query in (
        "source=other&id=r1",
        "id=r2",
        "id=",
        "id=%00",
        "source=%00&id=r1",
        "id=%ED%A0%80",
        "id=" + "x" * 5000,
    ):
        async with gateway.private.get(URL(f"/v1/messages?{query}", encoded=True)) as response:
            await problem(response, 404)
    async with gateway.private.get("/v1/messages?source=local") as response:
        await problem(response, 400)


@pytest.mark.parametrize("name", ["x", "0" * 26, "%00", "A" * 26, "%ED%A0%80", "x" * 8000, "..%2F..%2Fetc"])
@pytest.mark.parametrize("rest", ["", "/explain"])
async def test_an_unknown_message_is_not_found(gateway: Gateway, name: str, rest: str) -> None:
    url = URL(f"/v1/messages/{name}{rest}", encoded=True)
    async with gateway.private.get(url) as response:
        await problem(response, 404)
    if not rest:
        async with gateway.private.delete(url) as response:
            await problem(response, 404)


async def test_attempts_and_decisions_are_told_without_addresses_or_content(gateway: Gateway) -> None:
    message = await gateway.send()
    claimed = await gateway.claim(message)
    async with gateway.private.get(f"/v1/messages/{message}") as response:
        assert (await response.json())["state"] == "sending"
    await gateway.settle(claimed)
    async with gateway.private.get(f"/v1/messages/{message}") as response:
        text = await response.text()
    document = orjson.loads(text)
    (attempt,) = document["attempts"]
    assert (document["state"], document["reason"], document["due_at"]) == ("sent", None, None)
    seen = {"number", "repeats", "channel", "provider", "state", "begun_at", "ended_at", "reference", "error", "policy"}
    assert set(attempt) == seen
    assert (attempt["number"], attempt["channel"], attempt["provider"], attempt["state"], attempt["reference"]) == (
        1,
        "sms",
        "text",
        "accepted",
        "SM1",
    )
    assert "4155552671" not in text
    assert "hello" not in text


async def held(gateway: Gateway) -> tuple[str, str]:
    """A message that was sent, and the one that its place holds back."""
    first = await gateway.send(id="first")
    await gateway.settle(await gateway.claim(first))
    second = await gateway.send(id="second", timezone="Asia/Tokyo")
    await gateway.decide(second)
    return first, second


async def explained(gateway: Gateway, message: str) -> dict[str, Any]:
    async with gateway.private.get(f"/v1/messages/{message}/explain") as response:
        document: dict[str, Any] = await response.json()
    text = " ".join(document.pop("text"))
    assert of_message(document) == of_message(orjson.loads(orjson.dumps(document)))
    assert "4155552671" not in orjson.dumps(document).decode() + text
    return document | {"text": text}


async def test_explain_says_what_every_rule_says_now(gateway: Gateway) -> None:
    first, second = await held(gateway)
    document = await explained(gateway, second)
    (decision,) = document["decisions"]
    (holder,) = decision["why"][0]["held_by"]
    assert (decision["reason"], decision["policy"], holder["message"]) == ("daily", 7, first)
    assert (holder["channel"], holder["category"], holder["campaign"]) == ("sms", "news", None)
    assert document["reason"] == "daily"
    assert document["until"] == decision["until"] == document["due_at"]
    assert (document["zone"], document["zone_source"], document["zones"]) == ("Asia/Tokyo", "request", ["Asia/Tokyo"])
    now = document["now"]
    assert (now["policy"], now["behind"], now["channel"], now["instead"]) == (7, None, "sms", [])
    (rule,) = now["rules"]
    assert (rule["rule"], rule["permits"], rule["next"], rule["held_by"]) == ("daily", False, now["next"], [holder])
    assert now["would"] == {"state": "waiting", "reason": "daily", "until": document["until"], "will_expire": False}
    assert "is waiting" in document["text"]
    assert "1 of 1 contact in 24 h" in document["text"]
    assert f"is message {first}, category news." in document["text"]
    assert "version 7" in document["text"]
    assert "Asia/Tokyo" in document["text"]


async def test_explain_names_who_goes_first(gateway: Gateway) -> None:
    first = await gateway.send(id="first", expires_at="2100-01-01T00:00:00Z")
    second = await gateway.send(id="second", expires_at="2100-01-02T00:00:00Z", not_before="2099-01-01T00:00:00Z")
    document = await explained(gateway, second)
    assert document["now"]["behind"] == first
    assert document["now"]["at"] == "2099-01-01T00:00:00.000Z"
    assert document["now"]["would"] == {"state": "attempting", "channel": "sms", "provider": "text"}
    assert f"behind message {first}" in document["text"]
    assert "not sent before 16:00 on Wednesday 31 December 2098" in document["text"]


async def test_explain_of_one_that_nobody_can_send(gateway: Gateway) -> None:
    message = await gateway.send(to={"email": "a@example.com"})
    document = await explained(gateway, message)
    assert document["now"]["would"] == {"state": "refused", "reason": "no_address"}
    assert (document["now"]["channel"], document["now"]["rules"]) == (None, [])
    assert "it will be refused, because there is no address" in document["text"]
    await gateway.decide(message)
    document = await explained(gateway, message)
    assert (document["state"], document["reason"], document["now"]) == ("refused", "no_address", None)
    assert "because there is no address" in document["text"]


async def test_what_waits_can_be_cancelled_and_what_was_sent_cannot(gateway: Gateway) -> None:
    message = await gateway.send()
    for _ in range(2):
        async with gateway.private.delete(f"/v1/messages/{message}") as response:
            assert (response.status, await response.json()) == (200, {"state": "cancelled"})
    sent = await gateway.send(id="r2")
    claimed = await gateway.claim(sent)
    async with gateway.private.delete(f"/v1/messages/{sent}") as response:
        assert (await problem(response, 409))["state"] == "sending"
    await gateway.settle(claimed)
    async with gateway.private.delete(f"/v1/messages/{sent}") as response:
        assert (await problem(response, 409))["state"] == "sent"


# -------------------------------------------------------------------------------------------------------------- persons


async def test_a_person_is_put_and_got(gateway: Gateway) -> None:
    profile = {
        "phone": "+14155552671",
        "timezone": "Asia/Tokyo",
        "opted_out": [{"channel": "email"}, {"category": "news"}],
    }
    async with gateway.private.put("/v1/users/u%201%2F2", json=profile) as response:
        assert (response.status, await response.read()) == (204, b"")
    assert gateway.notices == 1
    async with gateway.private.get(URL("/v1/users/u%201%2F2", encoded=True)) as response:
        found = await response.json()
    assert found == {
        "user": "u 1/2",
        "profile": {"phone": "+14155552671", "timezone": "Asia/Tokyo"},
        "opted_out": [{"category": "news"}, {"channel": "email"}],
        "suppressed": [],
        "contacts": 0,
    }


async def test_contacts_are_counted(gateway: Gateway) -> None:
    await held(gateway)
    async with gateway.private.get("/v1/users/u1") as response:
        assert (await response.json())["contacts"] == 1


async def test_a_faulty_profile_changes_nothing(gateway: Gateway) -> None:
    async with gateway.private.put(
        "/v1/users/%00", json={"phone": "none", "timezone": "Mars", "colour": 1, "push": [{"token": "t"}]}
    ) as response:
        document = await problem(response, 422)
    assert {error["path"] for error in document["errors"]} == {
        "user",
        "phone",
        "timezone",
        "colour",
        "push[0].platform",
    }
    for body, status in ((b"3", 422), (b"{", 400), (b" " * 300_000, 413)):
        async with gateway.private.put("/v1/users/u1", data=body, headers=JSON) as response:
            await problem(response, status)
    async with gateway.private.put("/v1/users/u1", data=b"{}", headers=NDJSON) as response:
        await problem(response, 415)
    assert gateway.notices == 0


@pytest.mark.parametrize("name", ["nobody", "%00", "%ED%A0%80", "x" * 8000])
async def test_an_unknown_person_is_not_found(gateway: Gateway, name: str) -> None:
    async with gateway.private.get(URL(f"/v1/users/{name}", encoded=True)) as response:
        await problem(response, 404)


async def test_parked_input_is_listed(gateway: Gateway) -> None:
    fault = Fault("id", "is required")
    await gateway.store.park([ParkedInput("amqp", "orders", None, "malformed", (fault,), b"secret")] * 3)
    async with gateway.private.get("/v1/parked?limit=2") as response:
        text = await response.text()
    parked = orjson.loads(text)["parked"]
    assert len(parked) == 2
    assert parked[0]["faults"] == [{"path": "id", "problem": "is required"}]
    assert parked[0]["parked_at"].endswith("Z")
    assert "secret" not in text
    for limit in ("0", "-1", "x", "1001", "99999", "", "²", "1e2"):
        async with gateway.private.get("/v1/parked", params={"limit": limit}) as response:
            await problem(response, 400)


# ----------------------------------------------------------------------------------------------------------------- keys


async def test_keys_and_their_scopes(start: Any) -> None:
    gateway = await start(
        keys=(
            key_of("orders", "send"),
            key_of("support", "read"),
            key_of("crm", "admin"),
            key_of("otp", "send", "priority"),
            key_of("mta", "bounces"),
            key_of("app", "events"),
        )
    )
    post = gateway.private.post
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic a"},
        {"Authorization": "Bearer nobody's"},
    ):
        async with post("/v1/messages", json=request(), headers=headers) as response:
            await problem(response, 401)
            assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    async with post("/v1/messages", json=request(), headers=bearer("support")) as response:
        assert "scope send" in (await problem(response, 403))["detail"]
    async with post("/v1/messages", json=request(), headers=bearer("orders")) as response:
        assert response.status == 202
        message = (await response.json())["message"]
    for method, path, needed in (
        ("GET", f"/v1/messages/{message}", "support"),
        ("GET", f"/v1/messages/{message}/explain", "support"),
        ("GET", "/v1/messages?source=orders&id=r1", "support"),
        ("GET", "/v1/parked", "support"),
        ("GET", "/v1/users/u1", "support"),
        ("GET", "/v1/users/u1/eligibility?category=news", "support"),
        ("PUT", "/v1/users/u1", "crm"),
        ("DELETE", f"/v1/messages/{message}", "orders"),
    ):
        for name in ("orders", "support", "crm"):
            async with gateway.private.request(method, path, json={}, headers=bearer(name)) as response:
                assert response.status == 403 if name != needed else response.status < 300, (method, path, name)
    for name in ("orders", "support", "crm"):
        for method in ("POST", "DELETE"):
            no = {"user": "u1", "topic": "x"}
            async with gateway.private.request(method, "/v1/optouts", json=no, headers=bearer(name)) as response:
                assert response.status == (204 if name == "crm" else 403), (method, name)
    for name in ("orders", "support", "crm", "mta"):
        mail = bearer(name) | {"Content-Type": "message/rfc822"}
        async with post("/v1/bounces", data=b"Subject: hello", headers=mail) as response:
            assert response.status == (200 if name == "mta" else 403), name
    for name in ("orders", "support", "crm", "app"):
        event = {"id": "e1", "event": "app_opened", "user": "u1"}
        async with post("/v1/events", json=event, headers=bearer(name)) as response:
            assert response.status == (202 if name == "app" else 403), name
    for path in ("/livez", "/readyz", "/healthz", "/metrics"):
        async with gateway.private.get(path) as response:
            assert response.status == 200


async def test_the_command_line_says_what_its_key_lacks(start: Any) -> None:
    gateway = await start(keys=(key_of("orders", "send"), key_of("support", "read")))
    url = str(gateway.private._base_url)
    for key, said in ((None, "DECORUM_KEY"), ("another", "DECORUM_KEY"), ("key of orders", "scope read")):
        for asked in (
            explanation("0" * 26, None, url, key),
            explanation("r1", "orders", url, key),
            eligibility("u1", {"category": "news"}, url, key),
        ):
            with pytest.raises(GatewayError, match=said):
                await asked
    found = await eligibility("u 1/2", {"category": "news"}, f"{url}/", "key of support")
    assert (found["user"], found["allowed"]) == ("u 1/2", True)


async def test_the_key_names_the_source(start: Any) -> None:
    gateway = await start(keys=(key_of("orders", "send", "read"), key_of("billing", "send")))
    for source, status in (("billing", 422), ("orders", 202)):
        async with gateway.private.post(
            "/v1/messages",
            json=request(source=source, locale=1) if status == 422 else request(source=source),
            headers=bearer("orders"),
        ) as response:
            assert response.status == status
            if status == 422:
                errors = (await response.json())["errors"]
                assert {error["path"] for error in errors} == {"source", "locale"}
                assert "orders" in next(error["problem"] for error in errors if error["path"] == "source")
    async with gateway.private.get("/v1/messages?id=r1", headers=bearer("orders")) as response:
        assert (await response.json())["source"] == "orders"
    async with gateway.private.post("/v1/messages", json=request(), headers=bearer("billing")) as response:
        assert response.status == 202  # the same id from another source is another message


async def test_raising_a_priority_needs_its_scope(start: Any) -> None:
    gateway = await start(keys=(key_of("orders", "send"), key_of("otp", "send", "priority")))
    body = request(priority="critical")
    async with gateway.private.post("/v1/messages", json=body, headers=bearer("orders")) as response:
        assert (await problem(response, 422))["errors"][0]["path"] == "priority"
    async with gateway.private.post("/v1/messages", json=body, headers=bearer("otp")) as response:
        assert response.status == 202


async def test_without_keys_all_is_allowed(gateway: Gateway) -> None:
    await gateway.send(priority="critical")


# -------------------------------------------------------------------------------------------------- health and mistakes


async def test_readiness_tells_each_part(gateway: Gateway) -> None:
    async with gateway.private.get("/readyz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok", "parts": {"store": "ok"}})
    gateway.parts = {"store": "ok", "broker": "refused"}
    for path in ("/readyz", "/healthz"):
        async with gateway.private.get(path) as response:
            assert (response.status, (await response.json())["parts"]) == (503, gateway.parts)
    async with gateway.private.get("/livez") as response:
        assert response.status == 200


async def test_metrics_are_served_in_the_form_that_is_asked_for(gateway: Gateway) -> None:
    await gateway.send()
    async with gateway.private.get("/metrics") as response:
        assert response.content_type == "text/plain"
        assert 'gateway_requests_received_total{answer="accepted",via="http"} 1.0' in await response.text()
    async with gateway.private.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    ) as response:
        assert response.content_type == "application/openmetrics-text"
        assert (await response.text()).endswith("# EOF\n")


async def test_unknown_addresses_and_methods(gateway: Gateway) -> None:
    for session, path in ((gateway.private, "/nowhere"), (gateway.public, "/no/where")):
        async with session.get(path) as response:
            await problem(response, 404)
    async with gateway.private.patch("/v1/messages") as response:
        await problem(response, 405)
        assert response.headers["Allow"] == "GET, HEAD, POST"
    async with gateway.public.delete("/u/x") as response:
        await problem(response, 405)


async def test_a_bug_gives_nothing_away(gateway: Gateway) -> None:
    gateway.broken = True
    message = await gateway.send()
    with capture_logs() as logs:
        async with gateway.private.delete(f"/v1/messages/{message}") as response:
            document = await problem(response, 500)
    assert gateway.secret not in str(document)
    (line,) = logs
    assert (line["event"], line["error"], line["route"]) == ("http.bug", "RuntimeError", "/v1/messages/{message}")
    assert "_cancel" in line["traceback"]
    assert gateway.secret not in str(line)


async def test_nothing_that_was_sent_is_logged(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await start(keys=(key_of("orders", "send"),))
    with capture_logs() as logs, caplog.at_level("DEBUG"):
        async with gateway.private.post("/v1/messages", json=request(), headers=bearer("orders")) as response:
            assert response.status == 202
        async with gateway.private.post("/v1/messages", json=request(x=1), headers=bearer("orders")) as response:
            assert response.status == 422
        async with gateway.private.post(
            "/v1/messages", data=b'{"4155552671', headers=bearer("orders") | JSON
        ) as response:
            assert response.status == 400
    said = str(logs) + caplog.text
    assert not any(secret in said for secret in ("4155552671", "hello", "key of orders"))


# ------------------------------------------------------------------------------------------------------------ callbacks


def sample(gateway: Gateway, name: str, **labels: str) -> float | None:
    return gateway.metrics.registry.get_sample_value(name, labels)


def signed(path: str, fields: Mapping[str, str], token: str = TOKEN) -> dict[str, str]:
    """https://www.twilio.com/docs/usage/webhooks/webhooks-security"""
    text = PUBLIC + path + "".join(name + fields[name] for name in sorted(fields))
    return {"X-Twilio-Signature": base64.b64encode(hmac.digest(token.encode(), text.encode(), "sha1")).decode()}


NEWS = {"MessageSid": "SM1", "MessageStatus": "delivered", "AccountSid": "AC1"}


async def test_a_callback_is_committed_before_it_is_acknowledged(gateway: Gateway) -> None:
    message = await gateway.send()
    claimed = await gateway.claim(message)
    await gateway.settle(claimed)
    path = f"/callbacks/text?attempt={claimed.attempt.id}"
    for _ in range(2):  # a replay changes nothing
        async with gateway.public.post(path, data=NEWS, headers=signed(path, NEWS)) as response:
            assert (response.status, await response.read()) == (204, b"")
        assert await gateway.store.states([message]) == {message: MessageState.DELIVERED}
    assert sample(gateway, "gateway_delivery_reports_total", provider="text", status="delivered") == 2


async def test_the_url_is_the_configured_one_exactly_as_it_was_given(gateway: Gateway) -> None:
    path = "/callbacks/text?attempt=a%2Fb+c&x=%7e&empty="
    async with gateway.public.post(
        URL(path, encoded=True),
        data=NEWS,
        headers=signed(path, NEWS) | {"Host": "evil.example", "X-Forwarded-Host": "evil"},
    ) as response:
        assert response.status == 204


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({}, NEWS),
        (signed("/callbacks/text?attempt=a", NEWS, "another token"), NEWS),
        (signed("/callbacks/text?attempt=b", NEWS), NEWS),
        (signed("/callbacks/text?attempt=a", NEWS), NEWS | {"MessageStatus": "failed"}),
        ({"X-Twilio-Signature": "é" * 100}, NEWS),
    ],
)
async def test_a_forged_callback_is_refused_and_counted(
    gateway: Gateway, headers: dict[str, str], sent: dict[str, str]
) -> None:
    async with gateway.public.post("/callbacks/text?attempt=a", data=sent, headers=headers) as response:
        await problem(response, 403)
    assert sample(gateway, "gateway_delivery_reports_total", provider="text", status="forged") == 1


async def report(gateway: Gateway, body: bytes, *, token: str = TOKEN, status: int = 204) -> dict[str, Any]:
    """A callback of the vendor that is described, signed with a token."""
    headers = {"X-Sig": hmac.digest(token.encode(), body, "sha256").hex()} if token else {}
    async with gateway.public.post("/callbacks/given", data=body, headers=headers | JSON) as response:
        assert response.status == status
        return {} if status == 204 else await problem(response, status)


@pytest.mark.parametrize(
    ("body", "token", "status", "counted", "reason"),
    [
        (b'{"events":', TOKEN, 400, "unreadable", "not_json"),
        (b'{"events": [' + b"0," * 1000 + b"0]}", TOKEN, 400, "unreadable", "too_many"),
        (b'{"events":', "another token", 403, "forged", "signature"),
        (b"{}", "", 403, "forged", "missing_header"),
        (b'{"items": [{"type": "arrived"}]}', TOKEN, 204, "unread", "no_events"),
        (b'{"events": [{"kind": "arrived"}]}', TOKEN, 204, "unread", "no_status"),
        (b'{"events": [{"type": "arrived"}]}', TOKEN, 204, "unread", "no_attempt"),
    ],
)
async def test_a_callback_without_news_is_counted_and_logged_once_a_minute(
    gateway: Gateway, body: bytes, token: str, status: int, counted: str, reason: str
) -> None:
    with capture_logs() as logs:
        answers = [await report(gateway, body, token=token, status=status) for _ in range(3)]
    assert logs == [
        {
            "event": "callback.no_news",
            "log_level": "warning",
            "provider": "given",
            "status": counted,
            "reason": reason,
        }
    ]
    assert sample(gateway, "gateway_delivery_reports_total", provider="given", status=counted) == 3
    if status == 400:
        assert "is the vendor's, but" in answers[0]["detail"]
    if status == 403:
        assert answers[0]["detail"] == "It was not signed by the vendor, or not for this address"


async def test_a_receipt_for_no_attempt_of_ours_does_not_look_healthy(gateway: Gateway) -> None:
    claimed = await gateway.claim(await gateway.send())
    for attempt in (new_id(), claimed.attempt.id):
        await report(gateway, orjson.dumps({"events": [{"type": "arrived", "ref": attempt}]}))
    for status in ("unmatched", "delivered"):
        assert sample(gateway, "gateway_delivery_reports_total", provider="given", status=status) == 1


async def test_callbacks_that_cannot_be_taken(gateway: Gateway) -> None:
    for name in ("nobody", "inbox", "silent"):
        async with gateway.public.post(f"/callbacks/{name}?attempt=a", data=NEWS) as response:
            await problem(response, 404)
    async with gateway.public.post("/callbacks/text?attempt=a", data=b"x" * 300_000) as response:
        await problem(response, 413)
    path = "/callbacks/text?attempt=a"
    async with gateway.public.post(path, data={}, headers=signed(path, {})) as response:
        await problem(response, 400)
    async with gateway.public.get(path) as response:
        await problem(response, 405)


async def test_news_that_cannot_be_committed_is_not_acknowledged(gateway: Gateway) -> None:
    await gateway.store.close()
    path = "/callbacks/text?attempt=a"
    async with gateway.public.post(path, data=NEWS, headers=signed(path, NEWS)) as response:
        await problem(response, 503)


async def test_a_vendor_is_not_kept_waiting(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await start(callback_seconds=0.05)

    async def never(*_: object) -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(gateway.store, "receipt", never)
    path = "/callbacks/text?attempt=a"
    async with gateway.public.post(path, data=NEWS, headers=signed(path, NEWS)) as response:
        await problem(response, 503)


async def test_public_answers_carry_the_headers_that_keep_them_private(gateway: Gateway) -> None:
    for path in ("/u/x", "/nowhere"):
        async with gateway.public.get(path) as response:
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert "Python" not in response.headers["Server"]
