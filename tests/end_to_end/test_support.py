"""Every fate of a message, read as a support agent would: the numbers are right to the minute by the person's clock.

What is expected is computed here by calendars and minutes counted one by one, never by the rules that are asked.
"""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from phonenumbers import parse
from phonenumbers.timezone import time_zones_for_number

from gateway.decide import Attempting, Health
from gateway.message import MessageState, OptOut, Profile
from gateway.outcome import failed
from gateway.store import Claimed
from gateway.store.migrate import migrate
from providers import (
    Channel,
    Misconfigured,
    Receipt,
    ReceiptStatus,
    Rejected,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
)
from tests.desk import PHONE, SPAN, Desk, at, others
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TOKYO, NEW_YORK, HONOLULU = "Asia/Tokyo", "America/New_York", "Pacific/Honolulu"
TOLL_FREE = "+18002345678"
BOTH = (Channel.SMS, Channel.EMAIL)
POLICY = """
providers: {text: {kind: inbox}, spare: {kind: inbox}, mail: {kind: inbox}}
routes: {sms: [text, spare], email: [mail]}
policy:
  timezone: UTC
  countries: {JP: Asia/Tokyo}
  categories:
    code: {priority: critical, caps: exempt, quiet_hours: exempt, expires_after: 5m, abuse: {limit: 2, per: 1h}}
    receipt: {priority: high, caps: exempt, quiet_hours: exempt, on_unknown: repeat}
    news: {priority: bulk}
    offer: {priority: bulk, when_capped: drop}
    nudge: {priority: bulk, when_capped: next_channel}
    digest: {priority: bulk, collapse: newest}
    alert: {priority: high}
    bill: {priority: high, quiet_hours: exempt}
  caps:
    - {name: daily, limit: 2, per: 24h}
    - {name: sms-day, limit: 1, per: day, channel: sms, category: nudge}
    - {name: tighter, limit: 1, per: 24h, category: alert, enforce: 0%}
  minimum_gap: [{name: breather, gap: 2h, category: [news, offer]}]
  quiet_hours: [{name: night, from: "21:00", to: "08:00"}]
  send_windows: [{name: shop, category: digest, hours: ["11:00-12:00", "19:00-20:30"]}]
  holidays: [{name: rest, country: JP, category: digest}]
"""
MORNING = "2026-11-25T10:00+09:00"
"""A Wednesday, and no holiday."""


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("support") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def desk(empty: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    shutil.copy(empty, tmp_path / "desk.db")
    async with Desk(tmp_path / "desk.db", POLICY, at(MORNING)) as desk:
        yield desk


def wall(instant: datetime, zone: str = TOKYO) -> str:
    return f"{instant.astimezone(ZoneInfo(zone)):%H:%M}"


async def goes_at(desk: Desk, message: str, instant: datetime) -> None:
    """What was told is what happens: a second sooner it still waits, and at that instant it goes."""
    desk.now = instant - timedelta(seconds=1)
    await desk.work()
    assert await desk.store.states([message]) == {message: MessageState.WAITING}
    desk.now = instant
    await desk.work()
    assert await desk.store.states([message]) == {message: MessageState.SENT}


def says(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text, f"{part!r} is not in:\n{text}"


# ------------------------------------------------------------------------------------------------------ what was sent


async def test_one_that_was_sent_names_its_attempt_the_vendors_reference_and_the_policy(desk: Desk) -> None:
    message = await desk.sent("r1", "alert", campaign="spring")
    says(
        await desk.explain(message),
        f"Message {message} was handed to a provider, which accepted it.",
        "It is request r1 of loans for hana: category alert, campaign spring, priority high, accepted at 10:00.",
        "Attempt 1, at 10:00, by sms through provider text (policy version 1): the provider accepted it.",
        "Its reference there is V-42.",
        f"by the person's clock, which shows 10:00 on Wednesday 25 November 2026: it is taken to be that of {TOKYO}",
    )


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (ReceiptStatus.DELIVERED, "was delivered"),
        (ReceiptStatus.UNDELIVERED, "later reported that it did not arrive"),
    ],
)
async def test_a_receipt_is_told(desk: Desk, status: ReceiptStatus, told: str) -> None:
    message = await desk.sent("r1", "alert")
    view = await desk.store.view(message)
    assert view
    await desk.store.receipt([Receipt(view.attempts[0].id, status, "V-42", status, "30003")], desk.judge)
    text = await desk.explain(message)
    says(text, told)
    assert ("receipt:30003" in text) is (status is ReceiptStatus.UNDELIVERED)


async def test_one_that_is_under_way_says_so(desk: Desk) -> None:
    message = await desk.accept("r1", "alert")
    await desk.work(kill=True)
    says(await desk.explain(message), "is being handed to a provider at this moment", "it is under way")


async def test_rules_in_shadow_are_told_and_held_nothing_back(desk: Desk) -> None:
    await desk.sent("r1", "alert")
    message = await desk.sent("r2", "alert")
    says(
        await desk.explain(message),
        "was handed to a provider",
        "At 10:00 it was let go (policy version 1), because only rules in shadow objected",
        "Rule tighter would have held it back, if it were not in shadow: 1 of 1 contact in 24 h",
    )


# --------------------------------------------------------------------------------------------------------- what waits


async def test_a_full_cap_names_its_numbers_who_takes_the_places_and_when_one_frees(desk: Desk) -> None:
    first = await desk.sent("r1", "alert", campaign="spring")
    desk.pass_(hours=3, minutes=7)
    second = await desk.sent("r2", "alert")
    desk.pass_(hours=1)
    third = await desk.sent("r3", "alert")
    frees = at(MORNING) + timedelta(hours=24)
    says(
        await desk.explain(third),
        f"It can go at {wall(frees)} tomorrow at the earliest, the first moment that all rules permit.",
        "Rule daily holds it back: 2 of 2 contacts in 24 h",
        f"The places are taken by the sms at {wall(at(MORNING))} and the sms at 13:07.",
        f"The sms at 10:00 is message {first}, category alert, campaign spring.",
        f"The sms at 13:07 is message {second}, category alert.",
        "Rule night permits it",
        "The policy in force is version 1.",
    )
    await goes_at(desk, third, frees)


async def test_a_gap_is_counted_from_the_last_contact(desk: Desk) -> None:
    await desk.sent("r1", "news")
    desk.pass_(minutes=35)
    message = await desk.sent("r2", "news")
    text = await desk.explain(message)
    says(text, "It can go at 12:00 at the earliest", "Rule breather holds it back: 2 h", "the last contact, 10:00")
    await goes_at(desk, message, at(MORNING) + timedelta(hours=2))


async def test_quiet_hours_end_by_the_persons_clock_in_the_night_that_it_is_changed(desk: Desk) -> None:
    """On 1 November 2026 clocks in New York go back from 02:00 to 01:00."""
    desk.now = at("2026-10-31T23:30-04:00")
    message = await desk.sent("r1", "alert", to={"phone": "+12125550123"})
    says(
        await desk.explain(message),
        "It can go at 08:00 tomorrow at the earliest",
        f"Rule night holds it back: 23:30 in {NEW_YORK} is within quiet hours 21:00 to 08:00",
        f"shows 23:30 on Saturday 31 October 2026: it is taken to be that of {NEW_YORK}, where the person's phone",
    )
    await goes_at(desk, message, at("2026-11-01T08:00-05:00"))


async def test_where_a_number_may_lie_in_many_zones_it_is_quiet_while_it_is_in_one_of_them(desk: Desk) -> None:
    """A toll-free number is from anywhere between Guam and Puerto Rico."""
    zones = [ZoneInfo(name) for name in time_zones_for_number(parse(TOLL_FREE))]
    assert ZoneInfo(HONOLULU) in zones

    def quiet(instant: datetime) -> bool:
        return any(not time(8) <= instant.astimezone(zone).time() < time(21) for zone in zones)

    desk.now = at("2026-11-25T12:00-05:00")
    assert wall(desk.now, HONOLULU) == "07:00"
    message = await desk.sent("r1", "alert", to={"phone": TOLL_FREE})
    # Each of the attempt's instants must be free, so it must be free for the minute that it begins in.
    free = next(
        instant
        for n in range(3000)
        if not quiet(instant := desk.now + timedelta(minutes=n)) and not quiet(instant + SPAN)
    )
    found = await told(desk, message)
    own = found["zone"]
    tomorrow = " tomorrow" if free.astimezone(ZoneInfo(own)).date() > desk.now.astimezone(ZoneInfo(own)).date() else ""
    says(
        await desk.explain(message),
        f"It can go at {wall(free, own)}{tomorrow} at the earliest",
        f"that of {own}, the likeliest of {len(zones)} zones that the person's phone number may be from",
        "quiet hours and holidays in one of them hold for the person",
    )
    assert set(found["zones"]) == {zone.key for zone in zones}
    await goes_at(desk, message, free)


@pytest.mark.parametrize(
    ("how", "zone", "known"),
    [
        ({"timezone": HONOLULU}, HONOLULU, "as the request says"),
        ({"profile": {"timezone": "Asia/Kolkata"}}, "Asia/Kolkata", "as the person's profile says"),
        ({}, TOKYO, "where the person's phone number is from"),
        ({"to": {"email": "a@example.com"}, "profile": {"locale": "ja-JP"}}, TOKYO, "choice for the person's country"),
        ({"to": {"email": "a@example.com"}}, "UTC", "last resort, for nothing better is known of the person"),
    ],
)
async def test_the_zone_that_was_used_is_named_and_how_it_is_known(
    desk: Desk, how: dict[str, Any], zone: str, known: str
) -> None:
    if profile := how.pop("profile", None):
        await desk.store.put_profiles([("hana", Profile(**profile))])
    desk.now = datetime(2026, 11, 24, 23, 15, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    message = await desk.sent("r1", "alert", channels=BOTH, **how)
    says(
        await desk.explain(message),
        "It can go at 08:00 tomorrow at the earliest",
        f"23:15 in {zone}",
        f"which shows 23:15 on Tuesday 24 November 2026: it is taken to be that of {zone}, ",
        known,
    )
    await goes_at(desk, message, datetime(2026, 11, 25, 8, tzinfo=ZoneInfo(zone)).astimezone(UTC))


async def test_a_cap_that_frees_at_night_means_the_morning(desk: Desk) -> None:
    desk.now = at("2026-11-24T22:00+09:00")
    for name in ("r1", "r2"):
        await desk.sent(name, "bill")
    desk.now = at("2026-11-25T10:00+09:00")
    message = await desk.sent("r3", "alert")
    says(
        await desk.explain(message),
        "It can go at 08:00 tomorrow at the earliest, the first moment that all rules permit.",
        "Rule daily holds it back: 2 of 2 contacts in 24 h",
        "frees at 22:00",
        "Rule night permits it",
    )
    await goes_at(desk, message, at("2026-11-26T08:00+09:00"))


async def test_a_moment_before_the_night_is_too_late(desk: Desk) -> None:
    desk.now = at("2026-11-25T21:00+09:00") - SPAN / 2
    message = await desk.sent("r1", "alert")
    says(await desk.explain(message), "It can go at 08:00 tomorrow at the earliest", "Rule night holds it back")
    await goes_at(desk, message, at("2026-11-26T08:00+09:00"))


async def test_a_send_window_opens_by_the_likeliest_clock(desk: Desk) -> None:
    desk.now = at("2026-11-25T12:40+09:00")
    message = await desk.sent("r1", "digest")
    says(
        await desk.explain(message),
        "It can go at 19:00 at the earliest",
        f"Rule shop holds it back: 12:40 in {TOKYO} is outside the send window 11:00 to 12:00 and 19:00 to 20:30",
    )
    await goes_at(desk, message, at("2026-11-25T19:00+09:00"))


async def test_a_public_holiday_is_named(desk: Desk) -> None:
    """23 November is Labour Thanksgiving Day; in 2026 it is a Monday. https://www8.cao.go.jp/chosei/shukujitsu/gaiyou.html"""
    desk.now = at("2026-11-23T11:10+09:00")
    message = await desk.sent("r1", "digest")
    says(
        await desk.explain(message),
        "It can go at 11:00 tomorrow at the earliest",
        "Rule rest holds it back: Monday 23 November is a public holiday in JP: Labor Thanksgiving Day",
    )
    await goes_at(desk, message, at("2026-11-24T11:00+09:00"))


async def test_a_release_is_spread_and_the_persons_own_turn_is_told(desk: Desk) -> None:
    await desk.enact(POLICY.replace('to: "08:00"', 'to: "08:00", release_over: 30m'))
    desk.now = at("2026-11-25T23:00+09:00")
    turns = set()
    for user in ("ann", "bob", "cho"):
        message = await desk.sent(f"r-{user}", "alert", user=user)
        found = re.search(r"It can go at (08:\d\d) tomorrow at the earliest", await desk.explain(message))
        assert found
        turns.add(found[1])
        turn = datetime.fromisoformat((await told(desk, message))["now"]["next"])
        assert wall(turn) == found[1]
        assert timedelta() <= turn - at("2026-11-26T08:00+09:00") < timedelta(minutes=30)
        await goes_at(desk, message, turn)
        desk.now = at("2026-11-25T23:00+09:00")
    assert len(turns) > 1


async def test_one_behind_another_names_it(desk: Desk) -> None:
    desk.now = at("2026-11-25T23:00+09:00")
    first = await desk.sent("r1", "alert", expires_at=at("2026-11-27T00:00+09:00"))
    second = await desk.sent("r2", "alert", expires_at=at("2026-11-28T00:00+09:00"))
    says(
        await desk.explain(second),
        f"It stands in line behind message {first} of the same person, which goes first.",
        "It can go at 08:00 tomorrow at the earliest, the first moment that all rules permit, when it is its turn.",
        "It expires at 00:00 on Saturday 28 November.",
    )


async def test_one_that_is_asked_for_later_is_looked_at_for_then(desk: Desk) -> None:
    message = await desk.accept("r1", "alert", not_before=at("2026-11-27T06:00+09:00"))
    says(
        await desk.explain(message),
        "not sent before 06:00 on Friday 27 November.",
        "It can go at 08:00 on Friday 27 November at the earliest",
    )
    await goes_at(desk, message, at("2026-11-27T08:00+09:00"))


async def test_one_that_will_expire_before_it_may_go_says_so_and_then_that_it_has(desk: Desk) -> None:
    desk.now = at("2026-11-25T23:10+09:00")
    message = await desk.sent("r1", "alert", expires_at=at("2026-11-26T02:00+09:00"))
    says(
        await desk.explain(message),
        "It cannot go before it expires",
        "they would permit it from 08:00 tomorrow on",
        "It expires at 02:00 tomorrow.",
    )
    desk.now = at("2026-11-26T02:00+09:00")
    await desk.work()
    says(
        await desk.explain(message),
        "was not sent before it expired",
        "That was decided at 02:00 under policy version 1",
        "At 23:10 yesterday it was put off until it expires by rule night",
        f"Rule night held it back: 01:59 in {TOKYO} is within quiet hours",
    )


async def test_another_policy_is_told_by_its_number(desk: Desk) -> None:
    desk.now = at("2026-11-25T23:10+09:00")
    message = await desk.sent("r1", "alert")
    await desk.enact(POLICY.replace('to: "08:00"', 'to: "07:00"'))
    says(
        await desk.explain(message),
        "It can go at 07:00 tomorrow at the earliest",
        "The policy in force is version 2.",
        "At 23:10 it was put off until 08:00 tomorrow by rule night (policy version 1).",
    )


# --------------------------------------------------------------------------------------------------- what was refused


async def test_one_that_was_dropped_for_a_cap_tells_the_cap(desk: Desk) -> None:
    for name in ("r1", "r2"):
        await desk.sent(name, "alert")
    desk.pass_(hours=3)
    message = await desk.sent("r3", "offer")
    desk.pass_(days=2)
    says(
        await desk.explain(message),
        "was refused and will not be sent",
        "That was decided at 13:00 on Wednesday 25 November under policy version 1, because a cap or a gap holds it",
        "Rule daily held it back: 2 of 2 contacts in 24 h",
        "frees at 10:00 yesterday",
    )


async def test_the_next_channel_is_taken_and_why(desk: Desk) -> None:
    await desk.store.put_profiles([("hana", Profile(timezone=TOKYO))])
    first = await desk.sent("r1", "nudge", channels=BOTH)
    message = await desk.sent("r2", "nudge", channels=BOTH)
    story = (
        "At 10:00 the next channel was taken (policy version 1)",
        "Rule sms-day held it back: 1 of 1 contact in the day of Wednesday 25 November (Asia/Tokyo)",
        "Attempt 1, at 10:00, by email through provider mail (policy version 1): the provider accepted it.",
    )
    text = await desk.explain(message)
    says(text, *story)
    assert [*story] == sorted(story, key=text.index)
    third = await desk.sent("r3", "nudge", channels=BOTH)
    says(
        await desk.explain(third),
        "By sms, rule sms-day holds it back",
        "By email, rule daily holds it back: 2 of 2 contacts in 24 h",
        f"The sms at 10:00 is message {first}",
        f"The email at 10:00 is message {message}",
        "It can go at 10:00 tomorrow at the earliest",
    )
    await goes_at(desk, third, at(MORNING) + timedelta(hours=24))


async def test_the_clock_alone_leads_to_no_other_channel(desk: Desk) -> None:
    await desk.enact(POLICY.replace("quiet_hours: [{name: night,", "quiet_hours: [{name: night, channel: sms,"))
    await desk.store.put_profiles([("hana", Profile(timezone=TOKYO))])
    desk.now = at("2026-11-25T22:00+09:00")
    message = await desk.sent("r1", "nudge", channels=BOTH)
    says(
        await desk.explain(message),
        "It can go at 08:00 tomorrow at the earliest",
        "By sms, rule night holds it back",
        "By email, rule daily permits it",
        "A later channel is taken only where a cap or a gap, not the clock, holds it back on the one before.",
    )
    await goes_at(desk, message, at("2026-11-26T08:00+09:00"))


async def test_an_older_one_that_was_collapsed_names_the_newer(desk: Desk) -> None:
    desk.now = at("2026-11-25T23:00+09:00")
    old = await desk.sent("r1", "digest", campaign="spring")
    new = await desk.sent("r2", "digest", campaign="spring")
    says(await desk.explain(old), "was refused", f"took its place: message {new} is newer.")
    says(await desk.explain(new), "is waiting")


async def test_an_address_that_had_its_fill_says_how_many_and_until_when(desk: Desk) -> None:
    for number in range(2):
        await desk.sent(f"r{number}", "code", user=f"user-{number}")
        desk.pass_(minutes=10)
    message = await desk.sent("r9", "code")
    says(
        await desk.explain(message),
        "the address has had as many of its category as any address may",
        "Rule abuse held it back: 2 of 2 contacts in 1 h",
        "frees at 11:00",
        "The places are taken by the sms at 10:00 and the sms at 10:10.",
    )
    await desk.store.put_profiles([("hana", Profile(phone=PHONE))])
    found = orjson.loads(await desk.run("eligible", "hana", "code", "--json"))
    assert (found["allowed"], found["next"]) == (False, "2026-11-25T02:00:00.000Z")


@pytest.mark.parametrize(
    ("no", "by", "told"),
    [
        (OptOut(), "person", "the person has opted out of everything."),
        (OptOut(category="alert"), "person", "the person has opted out of category alert."),
        (OptOut(category="*"), "person", "the person has opted out of all that can be unsubscribed from."),
        (OptOut(channel=Channel.SMS), "person", "the person has opted out of everything by sms."),
        (OptOut(topic="rates"), "person", "the person has opted out of topic rates."),
        (OptOut(topic="rates"), "address", "somebody by the address that it would go to has opted out of topic rates."),
    ],
)
async def test_an_opt_out_says_who_said_no_to_what(desk: Desk, no: OptOut, by: str, told: str) -> None:
    desk.now = at("2026-11-25T23:00+09:00")
    message = await desk.sent("r1", "alert", labels={"topic": "rates"})
    if by == "person":
        await desk.store.opt_out("hana", no, "api", desk.judge)
    else:
        await desk.store.opt_out_address(PHONE, no, "api", desk.judge)
    says(await desk.explain(message), "it will be refused, because the person, or the address", told)
    desk.now = at("2026-11-26T08:00+09:00")
    await desk.work()
    clock = f"shows 08:00 on Thursday 26 November 2026: it is taken to be that of {TOKYO}"
    says(await desk.explain(message), "was refused and will not be sent", told, clock)


async def test_an_address_that_must_not_be_used_is_told(desk: Desk) -> None:
    desk.answers = {"text": [failed(Unreachable("21610"))]}
    bad = await desk.sent("r1", "alert")
    says(await desk.explain(bad), "was given up", "wants nothing from us (unreachable:21610)")
    later = await desk.sent("r2", "alert")
    says(await desk.explain(later), "was refused", "the person's address must not be used any more")


async def test_one_without_an_address_is_told(desk: Desk) -> None:
    message = await desk.sent("r1", "alert", to={})
    says(await desk.explain(message), "was refused", "there is no address, or no provider")


async def test_one_that_is_never_permitted_is_told(desk: Desk) -> None:
    """Between Guam and Puerto Rico it is never day everywhere, if the day is short."""
    await desk.enact(POLICY.replace('from: "21:00", to: "08:00"', 'from: "18:00", to: "10:00"'))
    message = await desk.sent("r1", "alert", to={"phone": TOLL_FREE})
    says(await desk.explain(message), "was refused", "because the policy never permits it", "Rule night held it back")


async def test_one_that_was_cancelled_is_told(desk: Desk) -> None:
    message = await desk.accept("r1", "alert")
    desk.pass_(minutes=3)
    assert (await desk.api("DELETE", f"/v1/messages/{message}"))[0] == 200
    says(await desk.explain(message), "was cancelled before it was sent", "That was decided at 10:03", "asked for that")


# ---------------------------------------------------------------------------------------------- what went wrong outside


async def test_an_unknown_outcome_is_not_called_a_failure(desk: Desk) -> None:
    desk.answers = {"text": [failed(Unconfirmed("timeout"))]}
    message = await desk.sent("r1", "alert")
    says(
        await desk.explain(message),
        "may have been sent: nobody knows, and it is not sent again",
        "nobody knows whether it was sent",
        "the provider never said whether it took it: no answer came in time (unconfirmed:timeout)",
    )


async def test_a_crash_in_the_middle_is_told(desk: Desk) -> None:
    message = await desk.accept("r1", "alert")
    await desk.work(kill=True)
    desk.pass_(minutes=5)
    await desk.work()
    says(await desk.explain(message), "may have been sent", "the gateway stopped in the middle of it (crash)")


async def test_one_that_is_repeated_says_when(desk: Desk) -> None:
    desk.answers = {"text": [failed(Unconfirmed("timeout"))]}
    message = await desk.sent("r1", "receipt")
    says(
        await desk.explain(message),
        "As things stand, it goes by sms through provider text at 10:15.",
        "nobody knows whether it was sent, and it is sent again then",
    )
    await goes_at(desk, message, at(MORNING) + timedelta(minutes=15))


async def test_one_that_is_tried_again_tells_what_was_tried(desk: Desk) -> None:
    desk.answers = {"text": [failed(Unavailable("refused"))], "spare": [failed(Misconfigured("20003"))]}
    message = await desk.sent("r1", "alert")
    says(
        await desk.explain(message),
        "Attempt 1, at 10:00, by sms through provider text (policy version 1): it was not sent",
        "(unavailable:refused)",
        "Attempt 2, at 10:00, by sms through provider spare (policy version 1): it was not sent",
        "the gateway's settings for the provider, or its account there, do not work (misconfigured:20003)",
        "it goes by sms through provider text within a minute.",
    )


async def test_one_that_a_provider_will_never_take_is_told(desk: Desk) -> None:
    desk.answers = {"text": [failed(Rejected("30007"))]}
    message = await desk.sent("r1", "alert")
    says(await desk.explain(message), "was given up", "the provider will never take this message (rejected:30007)")


async def test_one_that_waits_for_a_vendor_says_until_when(desk: Desk) -> None:
    desk.answers = {name: [failed(Throttled("429", timedelta(minutes=5)))] for name in ("text", "spare")}
    desk.health = Health(paused={name: desk.now + timedelta(minutes=5) for name in ("text", "spare")})
    message = await desk.sent("r1", "alert")
    says(
        await desk.explain(message),
        "it goes by sms through provider text at 10:05.",
        "At 10:00 it was put off until 10:05 (policy version 1), because its providers have asked to be sent less",
    )


async def test_one_whose_providers_are_busy_is_tried_in_a_moment(desk: Desk) -> None:
    desk.health = Health(full=("text", "spare"))
    message = await desk.accept("r1", "alert")
    wanted = [(desk.config.policy.categories["alert"].priority, Channel.SMS, 1)]
    (lease,), _ = await desk.store.lease(wanted, timedelta(seconds=30))
    (step,) = await desk.store.claim([lease], desk.judge, ["0" * 26])
    assert not isinstance(step, Attempting | Claimed)
    says(await desk.explain(message), "it was put off for less than a minute", "as much under way as they may")


async def test_one_whose_category_is_gone_is_set_aside(desk: Desk) -> None:
    message = await desk.accept("r1", "alert")
    without = POLICY.replace("    alert: {priority: high}\n", "").replace(
        "category: alert, enforce", "category: news, enforce"
    )
    await desk.enact(without)
    says(await desk.explain(message), "it will be set aside for people to look at, because its category is not")
    await desk.work()
    says(await desk.explain(message), "was set aside for people to look at", "its category is not configured any more")


# ---------------------------------------------------------------------------------------------------- the command line


async def told(desk: Desk, message: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(await desk.explain(message, "--json"))
    return found


async def test_a_request_is_explained_by_its_own_id(desk: Desk) -> None:
    message = await desk.sent("a/b?c#d é", "alert")
    by_id = await desk.explain(message)
    assert await desk.explain("a/b?c#d é", "--source", "loans") == by_id
    assert (await told(desk, message))["text"] == by_id.splitlines()


async def test_what_cannot_be_explained_says_why_and_what_to_do(desk: Desk) -> None:
    says(await desk.run("explain", "r1", status=1), "there is no message r1", "--source")
    odd = await desk.sent("r2", "alert") + "/explain?"
    says(await desk.run("explain", odd, status=1), f"there is no message {odd}")
    says(await desk.run("explain", "r1", "--source", "crm", status=1), "crm has sent no request with the id r1")
    nobodys = f"127.0.0.1:{free_port()}"
    desk.url = f"http://{nobodys}"
    says(await desk.run("explain", "r1", status=1), f"nothing answers at {nobodys}", "is the gateway running")


@pytest.mark.parametrize(
    "asked", ["explain r1", "explain 42 --source loans", "eligible hana alert", "report", "webhooks list", "send -"]
)
async def test_what_is_no_gateway_is_told_apart(desk: Desk, asked: str) -> None:
    async with others() as desk.url:
        told = await desk.run(*asked.split(), status=1, stdin=b"{}")
    says(told, "answered 200", "not as a gateway does")


async def test_a_password_in_the_address_is_not_told(desk: Desk) -> None:
    desk.url = desk.url.replace("http://", "http://ops:hunter2@")
    told = await desk.run("explain", "r1", status=1)
    says(told, "give --key")
    assert "hunter2" not in told


async def test_eligibility_is_told_like_an_explanation(desk: Desk) -> None:
    for name in ("r1", "r2"):
        message = await desk.sent(name, "alert")
    asked = ("eligible", "hana", "alert", "--timezone", TOKYO)
    says(
        await desk.run(*asked),
        "No: alert by sms may not be sent to hana at 10:00. The first moment that all rules permit is 10:00 tomorrow.",
        "Rule daily holds it back: 2 of 2 contacts in 24 h",
        f"The sms at 10:00 is message {message}, category alert.",
        "The rules are those of policy version 1.",
        "as the request says",
    )
    says(
        await desk.run(*asked, "--at", "2026-11-26T10:00:00+09:00", "--channel", "email"),
        "Yes: alert by email may be sent to hana at 10:00 tomorrow.",
        "No address for email is known of hana: the request must bring one.",
    )
    wrong = await desk.run("eligible", "hana", "alrt", "--channel", "smss", "--at", "2026-11-26", status=1)
    says(wrong, "did you mean alert?", "did you mean sms?", "at must be a date and time in RFC 3339 form")
    says(await desk.run("eligible", "hana", "alert", "--label", "x", status=1), "--label x: must be NAME=VALUE")
