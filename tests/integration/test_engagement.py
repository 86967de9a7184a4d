"""Opens and clicks over real HTTP: answered alike, remembered, told apart, and lost where that must be."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import pytest
from aiohttp import web
from selectolax.lexbor import LexborHTMLParser

from gateway.ids import new_id
from gateway.message import Priority
from gateway.metrics import Metrics
from gateway.render import code
from gateway.store import Claimed, Settlement, Store, StoreUnavailable
from gateway.store.engine import Fetch, Operation
from gateway.store.migrate import migrate
from gateway.visits import Networks
from gateway.web import Limits, public_app, runner
from providers import Channel
from tests.agents import GMAIL_PROXY, MACHINES, PEOPLE, YAHOO_PROXY
from tests.contract.world import ACCEPTED, World
from tests.integration.test_processes import served
from tests.servers import free_port, wait_until
from tests.vendors import twilio
from tests.vendors.ledger import Ledger
from tests.vendors.smtp import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from gateway.store.engine import Engine

PUBLIC = "https://m.example.com"
HTML = '<html><body><a href="https://a.test/1?x=1&amp;y=2">one</a> <a href="https://a.test/2">two</a></body></html>'
SAID = {"subject": "s", "text": "t", "html": HTML}
TEXT = "See https://a.test/" + "x" * 30 + "."
NOBODY = "0" * 26
CHROME = {"User-Agent": PEOPLE[0]}


class Slow:
    """A database that can be away, or take long."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.precedence = engine.precedence
        self.away = False
        self.goes = asyncio.Event()
        self.goes.set()
        self.writes = 0
        self.reads = 0

    async def open(self) -> None:
        await self._engine.open()

    async def close(self) -> None:
        await self._engine.close()

    async def _wait(self) -> None:
        await self.goes.wait()
        if self.away:
            raise StoreUnavailable("away")

    async def write(self, operation: Callable[[], Operation[Any]]) -> Any:
        self.writes += 1
        await self._wait()
        return await self._engine.write(operation)

    async def read(self, operation: Callable[[], Operation[Any]]) -> Any:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("away")
        return await self._engine.read(operation)


class House:
    """A public listener on a store whose clock is driven."""

    def __init__(self, database: Path, networks: Networks | None = None, limits: Limits | None = None) -> None:
        self.world = World(f"sqlite:///{database}", "  caps: [{name: hardly, limit: 99, per: 24h}]\n")
        self.world.judge = replace(self.world.judge, public_url=PUBLIC)
        self.metrics = Metrics("test")
        self.engine = Slow(self.world.engine)
        self.store = Store(self.engine, hear=self.metrics.noted)
        self.networks, self.limits = networks, limits
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.world.store.open()
        self._stack.push_async_callback(self.world.store.close)
        app = public_app(
            self.store, {}, lambda: self.world.judge, PUBLIC, self.metrics, self.limits, networks=self.networks
        )
        self.listener = runner(app, shutdown_timeout=0.1)
        await self.listener.setup()
        self._stack.push_async_callback(self.listener.cleanup)
        await web.TCPSite(self.listener, "127.0.0.1", 0).start()
        session = aiohttp.ClientSession(
            f"http://127.0.0.1:{self.listener.addresses[0][1]}",
            timeout=aiohttp.ClientTimeout(total=20),
            connector=aiohttp.TCPConnector(limit=50),
            skip_auto_headers=["User-Agent"],
        )
        self.session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.engine.goes.set()
        await self._stack.aclose()

    async def sent(self, number: int = 1, channel: Channel = Channel.EMAIL) -> list[str]:
        """The attempts of so many messages, each to a person of its own, handed over a minute ago."""
        content = {"sms": {"text": TEXT}, "email": SAID}
        new = [self.world.new(new_id(), channels=(channel,)) for _ in range(number)]
        new = [replace(one, message=replace(one.message, body={**one.message.body, "content": content})) for one in new]
        await self.world.accept(*new)
        leases, _ = await self.world.store.lease([(Priority.BULK, channel, number)], timedelta(seconds=30))
        claims = [step for step in await self.world.claim(*leases) if isinstance(step, Claimed)]
        await self.world.store.settle([Settlement(claimed, ACCEPTED) for claimed in claims], self.world.judge)
        self.world.pass_time(minutes=1)
        assert len(claims) == number
        return [claimed.attempt.id for claimed in claims]

    async def get(self, path: str, agent: str | None = PEOPLE[0], method: str = "GET", **headers: str) -> Answer:
        named = {} if agent is None else {"User-Agent": agent}
        asked = self.session.request(method, path, headers=named | headers, allow_redirects=False)
        async with asked as response:
            return response.status, dict(response.headers), await response.read()

    async def acts(self) -> list[tuple[str, str, int | None, str | None]]:
        def all_acts() -> Operation[list[Any]]:
            return (yield Fetch("select act, agent, link, why from acts order by id"))

        return [tuple(row) for row in await self.world.engine.read(all_acts)]

    async def remembered(self, number: int) -> list[tuple[str, str, int | None, str | None]]:
        async def enough() -> bool:
            return len(await self.acts()) >= number

        await wait_until(enough)
        return await self.acts()

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"gateway_{name}_total", labels) or 0.0


Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engagement") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def open_house(empty: Path, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[House]]]:
    shutil.copy(empty, tmp_path / "store.db")
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> House:
            return await stack.enter_async_context(House(tmp_path / "store.db", **options))

        yield begin


@pytest.fixture
async def house(open_house: Callable[..., Awaitable[House]]) -> House:
    return await open_house()


def same(answers: list[Answer]) -> bool:
    """Whether nobody could tell them apart."""
    plain = [(status, {k: v for k, v in headers.items() if k != "Date"}, body) for status, headers, body in answers]
    return all(answer == plain[0] for answer in plain)


def altered(attempt: str) -> str:
    """Another id, of the same form, that nobody has."""
    return attempt[:-1] + ("0" if attempt[-1] != "0" else "1")


# -------------------------------------------------------------------------------------------------------------- answers


async def test_a_pixel_is_the_same_whoever_asks_for_which(house: House) -> None:
    (attempt,) = await house.sent()
    tampered = (altered(attempt), attempt.upper(), attempt + "0", attempt + "'--", "x", "..%2f", "%00", "é")
    asked = (attempt, NOBODY, *tampered)
    answers = [await house.get(f"/o/{name}") for name in asked]
    assert same(answers)
    status, headers, body = answers[0]
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "image/gif", "no-store")
    assert (len(body), body[:6], headers["Content-Length"]) == (43, b"GIF89a", "43")
    for method in ("GET", "HEAD"):
        assert same([await house.get(f"/o/{name}", method=method) for name in asked])
    assert await house.remembered(2) == [("opened", "human", None, None), ("opened", "machine", None, "head")]


async def test_a_link_leads_where_the_message_says_and_others_nowhere(house: House) -> None:
    (mail,) = await house.sent()
    (text,) = await house.sent(1, Channel.SMS)
    short = code(text, 1)
    for path, leads in (
        (f"/c/{mail}/1", "https://a.test/1?x=1&y=2"),
        (f"/c/{mail}/2", "https://a.test/2"),
        (f"/c/{mail}/0", "https://a.test/1?x=1&y=2"),
        (f"/{short}", "https://a.test/" + "x" * 30),
    ):
        status, headers, body = await house.get(path)
        assert (status, headers["Location"], body) == (302, leads, b"")
        assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    wrong = [
        *(f"/c/{mail}/{link}" for link in ("3", "01", "-1", "1x", "99999", "100000", "%31%31", "%00")),
        *(f"/c/{name}/1" for name in (NOBODY, altered(mail), mail.upper(), mail + "0", "x", "%00")),
        *(f"/{name}" for name in (short[:-1], short + "0", short.swapcase(), "0" * 10)),
    ]
    nobodys = ["/favicon.ico", "/robots.txt", "/apple-touch-icon.png", f"/{short[:-1]}-"]
    answers = [await house.get(path) for path in (*wrong, *nobodys)]
    assert same(answers)
    assert answers[0][0] == 404
    assert b"leads nowhere" in answers[0][2]
    assert (await house.get(f"/c/{mail}/1?to=https://b.test"))[1]["Location"] == "https://a.test/1?x=1&y=2"
    assert same([await house.get(path, method="HEAD") for path in (*wrong, *nobodys)])
    assert house.counted("links_followed", answer="unknown") == 2 * len(wrong), "and what is no link of ours is none"


async def test_the_trap_looks_like_any_other_link(house: House) -> None:
    (mail,) = await house.sent()
    assert same([await house.get(f"/c/{mail}/{link}") for link in (1, 0)])


async def test_a_click_is_remembered_when_it_is_answered(house: House) -> None:
    (mail,) = await house.sent()
    await house.get(f"/c/{mail}/2")
    assert await house.acts() == [("clicked", "human", 2, None)]
    await house.get(f"/c/{mail}/2", agent="curl/8")
    assert (await house.acts())[1:] == [("clicked", "machine", 2, "program")]
    assert house.counted("acts", act="clicked", agent="human", channel="email") == 1
    assert house.counted("machine_acts", act="clicked", sign="program") == 1


async def test_a_click_right_after_the_hand_off_is_a_machines(house: House) -> None:
    (mail,) = await house.sent()
    house.world.pass_time(seconds=-59)
    await house.get(f"/c/{mail}/1")
    await house.get(f"/o/{mail}", agent=GMAIL_PROXY)
    assert await house.remembered(2) == [("clicked", "machine", 1, "fast"), ("opened", "machine", None, "fast")]


async def test_a_scanner_that_follows_everything_is_found_out(house: House) -> None:
    (mail,) = await house.sent()
    for link in (1, 0, 2):
        assert (await house.get(f"/c/{mail}/{link}"))[0] == 302
    assert {(agent, why) for _, agent, _, why in await house.acts()} == {("machine", "honeypot")}
    assert house.counted("acts_withdrawn") == 1
    assert house.counted("acts", act="clicked", agent="machine", channel="email") == 3


async def test_machines_are_known_by_their_network_behind_a_proxy_of_ours(
    open_house: Callable[..., Awaitable[House]],
) -> None:
    networks = Networks((ip_network("127.0.0.0/8"),), (ip_network("198.51.100.0/24"),))
    house = await open_house(networks=networks)
    one, other = await house.sent(2)
    await house.get(f"/c/{one}/1", **{"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})
    await house.get(f"/c/{other}/1", **{"X-Forwarded-For": "198.51.100.7, 203.0.113.9"})
    assert [why for *_, why in await house.acts()] == ["network", None]


async def test_a_thousand_opens_and_clicks_of_which_half_are_machines(house: House) -> None:
    """Each of a message of its own, by the names that programs have: only those of people count as theirs."""
    rng = random.Random(5)
    mails, texts = await house.sent(800), await house.sent(200, Channel.SMS)
    people = [*PEOPLE, *PEOPLE, GMAIL_PROXY, YAHOO_PROXY]
    cases = [(f"/o/{mail}", "opened", people) for mail in mails[:500]]
    cases += [(f"/c/{mail}/{rng.randint(1, 2)}", "clicked", list(PEOPLE)) for mail in mails[500:]]
    cases += [(f"/{code(text, 1)}", "clicked", list(PEOPLE)) for text in texts]
    expected: dict[tuple[str, str, str | None], int] = {}
    asked = []
    for number, (path, act, names) in enumerate(cases):
        machine = number % 2 == 1
        agent, why = rng.choice(MACHINES) if machine else (rng.choice(names), None)
        key = (act, "machine" if machine else "human", why)
        expected[key] = expected.get(key, 0) + 1
        asked.append((path, agent))
    rng.shuffle(asked)
    answers = await asyncio.gather(*(house.get(path, agent=agent) for path, agent in [*asked, *asked[:100]]))
    assert {status for status, _, _ in answers} == {200, 302}
    found: dict[tuple[str, str, str | None], int] = {}
    for act, agent, _, why in await house.remembered(1000):
        found[act, agent, why] = found.get((act, agent, why), 0) + 1
    assert found == expected
    assert sum(count for (_, agent, _), count in found.items() if agent == "human") == 500
    human = {"agent": "human"}
    assert house.counted("acts", act="opened", channel="email", **human) == 250
    assert house.counted("acts", act="clicked", channel="email", **human) == 150
    assert house.counted("acts", act="clicked", channel="sms", **human) == 100


# ---------------------------------------------------------------------------------------------- when the store is slow


async def test_who_reads_waits_for_no_database(house: House) -> None:
    (mail,) = await house.sent()
    house.engine.goes.clear()
    assert (await house.get(f"/o/{mail}"))[0] == 200
    await wait_until(lambda: house.engine.writes)
    assert await house.acts() == []
    house.engine.goes.set()
    assert await house.remembered(1) == [("opened", "human", None, None)]


async def test_who_clicks_waits_for_two_seconds_at_most_and_gets_there(house: House) -> None:
    (mail,) = await house.sent()
    house.engine.goes.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()
    status, headers, _ = await house.get(f"/c/{mail}/2")
    assert (status, headers["Location"]) == (302, "https://a.test/2")
    assert 1.5 < loop.time() - began < 5
    house.engine.goes.set()
    assert await house.remembered(1) == [("clicked", "human", 2, None)]


async def test_what_cannot_be_remembered_is_counted(house: House) -> None:
    (mail,) = await house.sent()
    house.engine.away = True
    assert (await house.get(f"/o/{mail}"))[0] == 200
    await wait_until(lambda: house.counted("acts_lost", act="opened") == 1)
    answers = [await house.get(f"/c/{name}/1") for name in (mail, NOBODY)]
    assert same(answers)
    assert (answers[0][0], answers[0][1]["Retry-After"]) == (503, "5")
    assert house.counted("links_followed", answer="unavailable") == 2


async def test_what_has_no_ids_form_asks_nothing_and_unknown_ids_write_nothing(house: House) -> None:
    (mail,) = await house.sent()
    for path in ("/o/tampered", f"/c/{mail}x/1", f"/c/{mail}/x", "/tampered"):
        await house.get(path)
    assert house.engine.reads == 0
    for _ in range(20):
        await house.get(f"/o/{new_id()}")
        await house.get(f"/c/{new_id()}/1")
        await house.get(f"/{code(new_id(), 1)}")
    await house.get(f"/o/{mail}")
    await house.remembered(1)
    assert house.engine.writes == 1


async def test_what_was_seen_is_remembered_when_the_listener_closes(house: House) -> None:
    (mail,) = await house.sent()
    house.engine.goes.clear()
    await house.get(f"/o/{mail}")
    await wait_until(lambda: house.engine.writes)
    asyncio.get_running_loop().call_later(0.2, house.engine.goes.set)
    await house.listener.cleanup()
    assert await house.acts() == [("opened", "human", None, None)]


# -------------------------------------------------------------------------------------------------------- the whole way

CONFIG = """
store: sqlite:///{folder}/decorum.db
http: {{private: 127.0.0.1:{private}, public: 127.0.0.1:{public}, public_url: "http://127.0.0.1:{public}"}}
providers:
  mail: {{kind: smtp, host: 127.0.0.1, port: {smtp}, security: none, sender: "hello@example.com"}}
  text: {{kind: twilio_sms, base_url: "http://127.0.0.1:{twilio}", account_sid: {sid}, auth_token: {token},
         sender: "+15005550006", pace: 100/s}}
routes: {{email: [mail], sms: [text]}}
policy: {{timezone: UTC, categories: {{news: {{priority: bulk}}}}}}
"""


async def test_the_links_of_a_mail_and_of_a_text_are_followed_from_end_to_end(tmp_path: Path) -> None:
    relay, vendor = Relay(Ledger()), twilio.Twilio(Ledger())
    private, public = free_port(), free_port()
    file = tmp_path / "gateway.yaml"
    ports = {"private": private, "public": public, "smtp": await relay.start(), "twilio": await vendor.start()}
    file.write_text(CONFIG.format(folder=tmp_path, sid=twilio.ACCOUNT_SID, token=twilio.AUTH_TOKEN, **ports))
    api, world = f"http://127.0.0.1:{private}", f"http://127.0.0.1:{public}"
    requests = [
        {"id": "m", "to": {"email": "hana@example.com"}, "content": {"email": SAID}},
        {"id": "t", "to": {"phone": "+818012345678"}, "content": {"sms": {"text": TEXT}}},
    ]
    try:
        async with aiohttp.ClientSession(headers=CHROME) as session:
            with served(tmp_path, file):

                async def ready() -> bool:
                    try:
                        async with session.get(f"{api}/readyz") as answer:
                            return answer.status == 200
                    except aiohttp.ClientError:
                        return False

                async def counted(sample: str) -> bool:
                    async with session.get(f"{api}/metrics") as answer:
                        return f"{sample} 1.0" in await answer.text()

                async def leads(url: str) -> str:
                    async with session.get(url, allow_redirects=False) as answer:
                        assert answer.status == 302
                        return answer.headers["Location"]

                await wait_until(ready, 60)
                body = [{"user": f"hana-{one['id']}", "category": "news"} | one for one in requests]
                async with session.post(f"{api}/v1/messages", json=body) as answer:
                    assert answer.status == 202, await answer.text()
                await wait_until(lambda: relay.mails and vendor.ledger.entries, 30)

                mail = message_from_bytes(relay.mails[0].content, policy=policy.default)
                page = LexborHTMLParser(mail.get_body(("html",)).get_content())  # type: ignore[union-attr]
                hrefs = [node.attributes["href"] or "" for node in page.css("a[href]")]
                assert all(href.startswith(f"{world}/c/") for href in hrefs)
                assert mail.get_body(("plain",)).get_content().strip() == "t"  # type: ignore[union-attr]
                short = vendor.ledger.entries[0]["text"].removeprefix("See ").removesuffix(".")
                assert short.startswith(f"{world}/")

                assert [await leads(href) for href in hrefs[:2]] == ["https://a.test/1?x=1&y=2", "https://a.test/2"]
                (pixel,) = [node.attributes["src"] or "" for node in page.css("img")]
                async with session.head(pixel) as answer:
                    assert answer.status == 200
                await wait_until(lambda: counted('gateway_machine_acts_total{act="opened",sign="head"}'))

                human = 'gateway_acts_total{{act="{}",agent="human",channel="{}"}}'

                async def seen(url: str, act: str, channel: str) -> bool:
                    """Whether it is a person's by now: at first it comes too soon after the hand-off."""
                    async with session.get(url, allow_redirects=False) as answer:
                        assert answer.status in (200, 302)
                    return await counted(human.format(act, channel))

                await wait_until(lambda: seen(short, "clicked", "sms"))
                await wait_until(lambda: seen(pixel, "opened", "email"))
                await wait_until(lambda: seen(hrefs[1], "clicked", "email"))
                assert await leads(short) == "https://a.test/" + "x" * 30
                assert vendor.requests[0][2]["Body"] == f"See {short}."
    finally:
        await relay.stop()
        await vendor.stop()
