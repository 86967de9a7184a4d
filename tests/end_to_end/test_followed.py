"""One mail and one text followed from publish to converted: each step is explained, told, counted and reported."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.campaign import CANARY, PHONES
from tests.end_to_end.harness import KEY, World, run_decorum, world
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

MAIL: dict[str, Any] = {
    "id": "mail-1",
    "user": "hana",
    "to": {"email": f"hana-{CANARY}@example.com"},
    "content": {"email": {"subject": CANARY, "text": f"Three minutes left, {CANARY}."}},
}
TEXT: dict[str, Any] = {
    "id": "text-1",
    "user": "kenji",
    "to": {"phone": f"{PHONES}12345678"},
    "content": {"sms": {"text": f"Three minutes left, {CANARY}."}},
}
COMMON = {"source": "shop", "category": "transactional", "campaign": "spring", "stage": "registered"}


async def test_one_mail_and_one_text_are_followed_from_publish_to_converted(
    tmp_path: Path, amqp_url: str, postgres_url: str
) -> None:
    async with world(tmp_path, store=postgres_url, broker=amqp_url) as here:
        await publish(here, "high", MAIL | COMMON, TEXT | COMMON)
        await happened(here, "mail-1", "sent")
        await happened(here, "text-1", "sent", "delivered")
        mail, text = await known(here, "mail-1"), await known(here, "text-1")
        assert (mail["state"], text["state"]) == ("sent", "delivered")
        assert mail["acts"] == text["acts"] == []
        await says(here, mail, "was handed to a provider, which accepted it", "by email through provider mail")
        await says(here, text, "was delivered", "by sms through provider text")
        await counts(here, "gateway_requests_received_total", 2, via="amqp", answer="accepted")
        await counts(here, "gateway_attempts_total", 1, channel="email", provider="mail", state="accepted")
        await counts(here, "gateway_delivery_reports_total", 1, provider="text", status="delivered")

        assert await here.count("select count(*) from jobs where name = 'sample'") == 1  # so that caps are measured

        # The person looks, and follows a link.
        by_theirs = {"id": "e-1", "event": "opened", "request": "mail-1"}
        by_ours = {"id": "e-2", "event": "clicked", "message": mail["message"]}
        assert await report(here, by_theirs, by_ours, by_theirs) == [202, 202, 200]
        await happened(here, "mail-1", "sent", "opened", "clicked")
        await says(here, mail, "It was opened at", "by a person.", "A person followed a link in it at")
        await counts(here, "gateway_acts_total", 1, act="opened", agent="human", channel="email")
        await counts(here, "gateway_reports_total", 1, event="opened", answer="repeated")

        # And does what it was for, as a service knows that has never heard of the message.
        converted = {"source": "bank", "event": "converted"}
        await publish(here, "events", {"id": "c-1", "user": "hana", "stage": "applied"} | converted)
        await publish(here, "events", {"id": "c-2", "user": "kenji", "stage": "granted"} | converted)
        await happened(here, "mail-1", "sent", "opened", "clicked", "converted")
        await happened(here, "text-1", "sent", "delivered", "converted")
        await says(here, mail, "came as far as stage applied at", "; this message is held to have led to it.")
        await says(here, text, "came as far as stage granted at")
        for channel in ("email", "sms"):
            await counts(here, "gateway_acts_total", 1, act="converted", agent="human", channel=channel)
        await counts(here, "gateway_reports_total", 2, event="converted", answer="recorded")
        acts = (await known(here, "mail-1"))["acts"]
        assert [(act["act"], act["channel"], act.get("stage")) for act in acts] == [
            ("opened", "email", None),
            ("clicked", "email", None),
            ("converted", "email", "applied"),
        ]
        last = [event for event in here.events if event.get("act") == "converted" and event["id"] == "mail-1"][-1]
        assert (last["campaign"], last["stage"], last["reached"], last["user"]) == (
            "spring",
            "registered",
            "applied",
            "hana",
        )

        # The report tells the same.
        found = json.loads(await decorum(here, "report", "--by", "campaign,channel", "--json"))
        rows = {row["key"]["channel"]: row for row in found["groups"]}
        steps = ("requested", "sent", "delivered", "opened", "clicked", "converted")
        assert [rows["email"][step] for step in steps] == [1, 1, None, 1, 1, 1]
        assert [rows["sms"][step] for step in steps] == [1, 1, 1, None, 0, 1]
        assert rows["email"]["reached"] == {"applied": 1, "granted": 0}
        assert rows["sms"]["reached"] == {"applied": 0, "granted": 1}

        # What is misspelt is told to those who look after the queue.
        await publish(here, "events", {"id": "c-3", "usr": "hana"} | converted)
        await wait_until(lambda: parked(here), 20, "it is parked")
        assert [gateway.drain() for gateway in here.gateways] == [0]
        assert set((await here.queued()).values()) == {0}
        assert here.leaks() == []
        assert here.complaints() == []


async def publish(here: World, key: str, *bodies: dict[str, Any]) -> None:
    await here.publish({key: [json.dumps(body).encode() for body in bodies]})


async def parked(here: World) -> bool:
    found = await here.parked()
    assert all("did you mean user?" in str(headers["x-decorum-faults"]) for _, headers in found)
    return bool(found)


async def happened(here: World, request: str, *steps: str) -> None:
    """Wait until others have been told exactly this of a request, in this order."""

    def told() -> list[str]:
        found = (event.get("act") or event["state"] for event in here.events if event.get("id") == request)
        return list(dict.fromkeys(found))  # at least once

    try:
        await wait_until(lambda: told() == list(steps), 20)
    except AssertionError:
        raise AssertionError(f"{request}: {told()}, not {steps}") from None


async def known(here: World, request: str) -> dict[str, Any]:
    status, found = await here.send(b"", source="shop", id=request)
    assert status == 200
    return dict(found)


async def says(here: World, message: dict[str, Any], *parts: str) -> None:
    """What ``decorum explain`` prints."""
    text = await decorum(here, "explain", message["message"])
    for part in parts:
        assert part in text, text


async def decorum(here: World, *arguments: str) -> str:
    done = await asyncio.to_thread(run_decorum, *arguments, "--url", here.gateways[0].url, "--key", KEY)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


async def report(here: World, *events: dict[str, Any]) -> list[int]:
    """Over HTTP, as the shop; the status of each."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{here.gateways[0].url}/v1/events", json=events) as response,
    ):
        return [result["status"] for result in (await response.json())["results"]]


async def counts(here: World, name: str, value: float, **labels: str) -> None:
    """What Prometheus is told."""
    async with aiohttp.ClientSession() as session, session.get(f"{here.gateways[0].url}/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    assert found == [value], (name, labels)
