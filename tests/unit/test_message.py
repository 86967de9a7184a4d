"""Is what services may ask exactly what the contract says, and is every refusal one that they can act on?"""

from __future__ import annotations

import asyncio
import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config import parse
from gateway.decide import Judge
from gateway.ids import new_id, oldest_id
from gateway.intake import Accepted, Conflict, Incoming, Intake, Malformed, faults_of
from gateway.message import (
    EPOCH,
    Message,
    MessageState,
    OptOut,
    Priority,
    Profile,
    SendRequest,
    canonical_hash,
    instant,
    microseconds,
    rfc3339,
)
from gateway.metrics import Metrics
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.store import Known, NewMessage, ParkedInput

FULL: Mapping[str, Any] = {
    "id": "r-1",
    "source": "orders",
    "user": "ann",
    "category": "news",
    "channels": ["push", "sms", "email", "robocall"],
    "to": {
        "phone": "+14155552671",
        "email": "ann@example.com",
        "push": [{"token": "t0ken", "platform": "android", "provider": "fcm"}],
    },
    "content": {
        "sms": {"text": "hello"},
        "email": {"subject": "hello", "text": "hi", "html": "<p>hi"},
        "push": {"title": "hello", "body": "hi", "data": {"key": "value"}, "image": "https://example.com/i.png"},
        "robocall": {"say": "hello", "language": "en-GB"},
    },
    "timezone": "Asia/Tokyo",
    "locale": "ja-JP",
    "campaign": "wake",
    "stage": "registered",
    "variant": "b",
    "labels": {"team": "growth"},
    "priority": "normal",
    "not_before": "2026-11-22T08:00:00Z",
    "expires_at": "2026-11-23T08:00:00+09:00",
}
"""Every field of the contract."""


def changed(path: str, value: object) -> dict[str, Any]:
    """The full request with something else at a path such as ``to.push.0.token``; ``...`` leaves it out."""
    request: dict[str, Any] = copy.deepcopy(dict(FULL))
    *way, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    part: Any = request
    for step in way:
        part = part[step]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return request


def refused(request: object) -> dict[str, str]:
    """Each fault's path and problem."""
    with pytest.raises(ValidationError) as caught:
        SendRequest.model_validate(request)
    return {fault.path: fault.problem for fault in faults_of(caught.value, SendRequest)}


# --------------------------------------------------------------------------------------------------------- the contract


def test_every_field_of_the_contract_is_taken() -> None:
    request = SendRequest.model_validate(FULL)
    assert request.priority is Priority.NORMAL
    assert request.channels == (Channel.PUSH, Channel.SMS, Channel.EMAIL, Channel.ROBOCALL)
    assert request.content.channels() == frozenset(Channel)
    assert request.expires_at == datetime(2026, 11, 22, 23, tzinfo=UTC)
    assert SendRequest.model_validate(request.model_dump(mode="json", exclude_unset=True)) == request


def test_only_id_source_user_category_and_content_are_required() -> None:
    required = {"id", "source", "user", "category", "content"}
    SendRequest.model_validate({field: FULL[field] for field in required})
    assert refused({}) == dict.fromkeys(required, "is required")


TEXT_OF = {"id": 128, "source": 64, "user": 128}
"""The longest that each may be."""


@pytest.mark.parametrize(("field", "most"), TEXT_OF.items())
def test_names_have_a_greatest_length(field: str, most: int) -> None:
    SendRequest.model_validate(changed(field, "é" * most))
    assert f"at most {most} characters" in refused(changed(field, "é" * (most + 1)))[field]


@pytest.mark.parametrize("field", ["id", "source", "user", "category", "campaign", "stage", "variant"])
@pytest.mark.parametrize("bad", ["", "a\x00b", "a\nb", "\x1b[2J", "a\u2028b", "\u202ecba", "a\u200bb", "a\ud800b"])
def test_names_are_printable(field: str, bad: str) -> None:
    assert list(refused(changed(field, bad))) == [field]


@pytest.mark.parametrize("field", ["id", "source", "user", "category", "campaign"])
@pytest.mark.parametrize("bad", [1, 1.5, True, [], {}, ["a"]])
def test_names_are_text_and_nothing_that_could_be_made_into_it(field: str, bad: object) -> None:
    assert "must be text" in refused(changed(field, bad))[field]


BAD: Sequence[tuple[str, object, str, str]] = [
    # what is changed, to what, where the fault is, what it says
    ("id", ..., "id", "is required"),
    ("user", None, "user", "must be text"),
    ("content", ..., "content", "is required"),
    ("usr", "ann", "usr", "is not a known field: did you mean user?"),
    ("to.fax", "+14155552671", "to.fax", "is not a known field: remove it, or mend its spelling"),
    ("to.phne", "+14155552671", "to.phne", "is not a known field: did you mean phone?"),
    ("to.push.0.tokn", "t", "to.push[0].tokn", "is not a known field: did you mean token?"),
    ("to", "+14155552671", "to", "must be an object"),
    ("labels", "growth", "labels", "must be an object"),
    ("to.push", "t", "to.push", "must be a list"),
    ("content.sms.txt", "x", "content.sms.txt", "did you mean text?"),
    # phones: E.164
    ("to.phone", "14155552671", "to.phone", "E.164"),
    ("to.phone", "+1 415 555 2671", "to.phone", "E.164"),
    ("to.phone", "+1-415-555-2671", "to.phone", "E.164"),
    ("to.phone", "+1415555267x", "to.phone", "E.164"),
    ("to.phone", "+1", "to.phone", "E.164"),
    ("to.phone", "+", "to.phone", "E.164"),
    ("to.phone", "+999", "to.phone", "E.164"),
    ("to.phone", "+٤٤٧٤٠٠١٢٣٤٥٦", "to.phone", "E.164"),
    ("to.phone", "+14155552671\n", "to.phone", "E.164"),
    ("to.phone", "+1415555267112345678901", "to.phone", "at most 20"),
    ("to.phone", 14155552671, "to.phone", "must be text"),
    # mail addresses
    ("to.email", "ann", "to.email", "mail address"),
    ("to.email", "ann@", "to.email", "mail address"),
    ("to.email", "@example.com", "to.email", "mail address"),
    ("to.email", "ann@exa mple.com", "to.email", "mail address"),
    ("to.email", "ann@example.com\r\nBcc: eve@example.com", "to.email", "mail address"),
    ("to.email", "Ann <ann@example.com>", "to.email", "mail address"),
    ("to.email", "ann@example.com, eve@example.com", "to.email", "mail address"),
    ("to.email", "a\x00nn@example.com", "to.email", "mail address"),
    ("to.email", "ann@" + "a." * 200 + "com", "to.email", "at most 320"),
    # push tokens
    ("to.push.0.token", "", "to.push[0].token", "must not be empty"),
    ("to.push.0.token", "a\nb", "to.push[0].token", "printable"),
    ("to.push.0.token", "t" * 4097, "to.push[0].token", "at most 4096"),
    ("to.push.0.platform", "symbian", "to.push[0].platform", "must be one of android, ios, web"),
    ("to.push.0.platform", "andriod", "to.push[0].platform", "did you mean android?"),
    ("to.push.0.platform", ..., "to.push[0].platform", "is required"),
    ("to.push", [FULL["to"]["push"][0]] * 21, "to.push", "at most 20"),
    # where and in which tongue
    ("timezone", "Tokyo", "timezone", "IANA"),
    ("timezone", "", "timezone", "IANA"),
    ("timezone", "UTC+9", "timezone", "IANA"),
    ("timezone", "../../etc/passwd", "timezone", "IANA"),
    ("timezone", "/etc/localtime", "timezone", "IANA"),
    ("timezone", "localtime", "timezone", "IANA"),
    ("timezone", "right/Asia/Tokyo", "timezone", "IANA"),
    ("timezone", "Asia", "timezone", "IANA"),
    ("timezone", "Asia/Tok\x00yo", "timezone", "IANA"),
    ("timezone", 9, "timezone", "must be text"),
    ("locale", "ja_JP", "locale", "must be a BCP 47 tag, such as ja-JP"),
    ("locale", "japanese-", "locale", "must be a BCP 47 tag, such as ja-JP"),
    ("locale", "ja-JP\n", "locale", "must be a BCP 47 tag, such as ja-JP"),
    # channels
    ("channels", [], "channels", "must not be empty"),
    ("channels", ["sms", "sms"], "channels", "twice"),
    ("channels", ["fax"], "channels[0]", "must be one of email, sms, push, robocall"),
    ("channels", ["emial"], "channels[0]", "must be one of email, sms, push, robocall: did you mean email?"),
    ("channels", [7], "channels[0]", "must be one of email, sms, push, robocall"),
    ("channels", "sms", "channels", "must be a list"),
    # content
    ("content", {}, "content", "at least one of sms, email, push, robocall"),
    ("content", {"sms": None}, "content", "at least one of sms, email, push, robocall"),
    ("content.sms.text", "", "content.sms.text", "must not be empty"),
    ("content.sms.text", "a\x00b", "content.sms.text", "NUL"),
    ("content.sms.text", "a\ud800b", "content.sms.text", "half a character"),
    ("content.sms.text", "x" * 1601, "content.sms.text", "at most 1600"),
    ("content.email.subject", "a\r\nBcc: eve@example.com", "content.email.subject", "one line"),
    ("content.email.subject", "a\u2028b", "content.email.subject", "one line"),
    ("content.email.subject", "x" * 999, "content.email.subject", "at most 998"),
    ("content.email", {"subject": "s"}, "content.email", "a text or an html"),
    ("content.email.html", "a\x00", "content.email.html", "NUL"),
    ("content.push.title", ..., "content.push.title", "is required"),
    ("content.push.data", {"n": 1}, "content.push.data.n", "must be text"),
    ("content.push.data", {"n": "a\x00"}, "content.push.data.n", "NUL"),
    ("content.push.data", {"n": "a\ud800"}, "content.push.data.n", "half a character"),
    ("content.push.image", "javascript:alert(1)", "content.push.image", "must be an address on the web"),
    ("content.push.image", "https://example.com/a b", "content.push.image", "must be an address on the web"),
    ("content.robocall.language", "English (US)", "content.robocall.language", "must be a BCP 47 tag, such as ja-JP"),
    ("content.robocall", {}, "content.robocall", "either say or audio_url"),
    ("content.robocall.audio_url", "https://example.com/a.mp3", "content.robocall", "either say or audio_url"),
    ("content.robocall.say", "x" * 4001, "content.robocall.say", "at most 4000"),
    # the rest
    ("labels", {str(i): "x" for i in range(17)}, "labels", "at most 16"),
    ("labels", {"team": 1}, "labels.team", "must be text"),
    ("priority", "urgent", "priority", "critical, high, normal, bulk"),
    ("priority", 0, "priority", "critical, high, normal, bulk"),
    ("priority", [], "priority", "critical, high, normal, bulk"),
    # instants: RFC 3339, whose offset is not optional
    ("expires_at", "2026-11-23T08:00:00", "expires_at", "must have an offset, such as 2026-11-22T08:00:00Z or"),
    ("expires_at", "2026-11-23", "expires_at", "RFC 3339"),
    ("expires_at", "tomorrow", "expires_at", "RFC 3339"),
    ("expires_at", "2026-13-23T08:00:00Z", "expires_at", "is no date and time that there is"),
    ("expires_at", "2026-11-23 08:00:00 somewhere", "expires_at", "is no date and time that there is"),
    ("expires_at", 1795000000, "expires_at", "RFC 3339"),
    ("expires_at", "1795000000", "expires_at", "RFC 3339"),
    ("expires_at", "9999-12-31T23:59:59-12:00", "expires_at", "between the years"),
    ("not_before", "9999-12-31T23:59:59Z", "not_before", "between the years"),
    ("not_before", "0001-01-01T00:00:00+14:00", "not_before", "between the years"),
    ("not_before", True, "not_before", "RFC 3339"),
    ("expires_at", "2026-11-22T08:00:00Z", "", "later than not_before"),
    ("expires_at", "2026-11-22T16:59:59+09:00", "", "later than not_before"),
]


@pytest.mark.parametrize(("where", "value", "path", "phrase"), BAD)
def test_a_bad_value_is_named_with_its_path_and_what_would_be_right(
    where: str, value: object, path: str, phrase: str
) -> None:
    found = refused(changed(where, value))
    assert list(found) == [path]
    assert phrase in found[path]


GOOD: Sequence[tuple[str, object]] = [
    ("to.phone", "+819012345678"),
    ("to.phone", "+80012345678"),
    ("to.email", "ann+tag@example.com"),
    ("to.email", '"ann smith"@example.com'),
    ("to.email", "пошта@приклад.укр"),
    ("to.email", "ann@xn--bcher-kva.example"),
    ("to.email", "ann@bücher.example"),
    ("to.email", "ann@sub.example.test"),
    ("to", None),
    ("to.push", []),
    ("channels", None),
    ("timezone", "America/Argentina/Buenos_Aires"),
    ("timezone", "Etc/GMT-14"),
    ("locale", "zh-Hant-TW"),
    ("content.sms.text", "x" * 1600),
    ("content.sms.text", "line\nbreak\ttab 😀"),
    ("content.email", {"subject": "héllo", "html": "<p>"}),
    ("content.robocall", {"audio_url": "https://example.com/a.mp3"}),
    ("priority", "bulk"),
    ("expires_at", "2026-11-22T08:00:00.000001Z"),
    ("expires_at", "2026-11-22t08:00:01z"),
    ("not_before", "2026-11-22T16:59:59+09:00"),
]


@pytest.mark.parametrize(("where", "value"), GOOD)
def test_what_is_right_is_taken(where: str, value: object) -> None:
    SendRequest.model_validate(changed(where, value))


@pytest.mark.parametrize(
    "address",
    [
        "secret@ex\u2019ample.com",
        "x@secret_.com",
        "secret\u0000@example.com",
        "x@xn--secretb.com",
        "x@[secret]",
        "x@[IPv6:secret]",
        "x@-secret-.com",
        "x@secret..com",
        "secret",
        "x@secret",
    ],
)
def test_what_is_said_of_a_mail_address_does_not_quote_it(address: str) -> None:
    found = refused(changed("to.email", address))
    assert not any(word in found["to.email"] for word in ("secret", "\u2019", "'", "_", "U+"))


def test_every_fault_is_told_at_once() -> None:
    bad = changed("to.phone", "1") | {"id": "", "labels": [], "nonsense": 1}
    assert set(refused(bad)) == {"to.phone", "id", "labels", "nonsense"}


@pytest.mark.parametrize(
    ("optout", "covered"),
    [
        (OptOut(), True),
        (OptOut(channel=Channel.SMS), True),
        (OptOut(category="news"), True),
        (OptOut(topic="loans"), True),
        (OptOut(channel=Channel.SMS, category="news", topic="loans"), True),
        (OptOut(channel=Channel.EMAIL), False),
        (OptOut(category="codes"), False),
        (OptOut(topic="cards"), False),
        (OptOut(channel=Channel.EMAIL, category="news", topic="loans"), False),
        (OptOut(channel=Channel.SMS, category="codes", topic="loans"), False),
        (OptOut(channel=Channel.SMS, category="news", topic="cards"), False),
    ],
)
def test_a_no_covers_what_is_all_that_it_names(optout: OptOut, covered: bool) -> None:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    body = {"labels": {"topic": "loans", "team": "cards"}}
    named = Message("m", "s", "r", "ann", "news", (Channel.SMS,), Priority.BULK, at, at, at, None, body)
    assert optout.covers(Channel.SMS, named, needed=True) is covered
    assert optout.covers(Channel.SMS, named, needed=False) is covered


@pytest.mark.parametrize("no", [OptOut(category="*"), OptOut(category="*", channel=Channel.SMS, topic="loans")])
def test_a_no_to_all_that_can_be_unsubscribed_from_covers_that(no: OptOut) -> None:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    body = {"labels": {"topic": "loans"}}
    any_category = Message("m", "s", "r", "ann", "news", (Channel.SMS,), Priority.BULK, at, at, at, None, body)
    assert no.covers(Channel.SMS, any_category, needed=False)
    assert not no.covers(Channel.SMS, any_category, needed=True)
    assert no.covers(Channel.EMAIL, any_category, needed=False) is (no.channel is None)


def test_a_no_to_a_topic_covers_no_message_without_one() -> None:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    plain = Message("m", "s", "r", "ann", "news", (Channel.SMS,), Priority.BULK, at, at, at, None, {})
    assert not OptOut(topic="loans").covers(Channel.SMS, plain, needed=False)


# ---------------------------------------------------------------------------------------- whatever comes gets an answer

CONFIG = """
providers: {one: {kind: inbox}}
routes: {sms: [one], email: [one], push: [one], robocall: [one]}
policy: {timezone: UTC, categories: {news: {}}}
"""
SECRET = "xyzzy"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Forgetful:
    """A store to which everything is new."""

    async def accept(self, new: Sequence[NewMessage]) -> list[Known | None]:
        for item in new:  # what every store does with it
            microseconds(item.message.expires_at)
            instant(microseconds(item.message.starts_at))
            orjson.dumps(item.message.body)
        return [None] * len(new)

    async def park(self, inputs: Sequence[ParkedInput]) -> None:
        for item in inputs:
            assert "\x00" not in (item.request or "")  # PostgreSQL keeps none
            (item.request or "").encode()


def intake() -> Intake:
    config = parse(CONFIG, {}, base=Path())
    judge = Judge(config.policy, 1, config.routes, {}, timedelta(seconds=10))
    return Intake(Forgetful(), lambda: judge, Metrics("test"))  # type: ignore[arg-type]


secret_texts = st.one_of(
    st.builds("{}{}{}".format, st.text(max_size=3), st.just(SECRET), st.text(max_size=3)),
    st.sampled_from(
        ["{0}@{0}", "{0} x@a.b", "a@{0}\u2019b", "a@xn--{0}b", "a@[{0}]", "+{0}", "{0}/{0}", "a@{0}_b.c"]
    ).map(lambda form: form.format(SECRET)),
    st.sampled_from(["2026-99-99T{0}Z", "2026-11-22T00:00{0}", "9999-12-31T23:59:59-12:00{0}"]).map(
        lambda form: form.format(SECRET)
    ),
)
scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | secret_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _paths(part: Any, at: str = "") -> list[str]:
    steps = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    found = [f"{at}.{step}".strip(".") for step, _ in steps]
    return found + [path for step, child in steps for path in _paths(child, f"{at}.{step}".strip("."))]


requests = st.builds(changed, st.sampled_from(_paths(dict(FULL))), values | st.just(...))


@given(requests | values, st.sampled_from(["http", "amqp", "file"]))
@settings(max_examples=400, deadline=None)
def test_any_json_gets_an_answer_that_repeats_nothing_of_it(sent: object, via: Any) -> None:
    body = json.dumps(sent).encode()
    (answer,) = asyncio.run(intake().accept([Incoming(body, via)]))
    assert isinstance(answer, Accepted | Conflict | Malformed)
    if isinstance(answer, Malformed):
        assert answer.faults
        assert not any(SECRET in fault.problem.casefold() for fault in answer.faults)


@given(requests)
@settings(max_examples=200, deadline=None)
def test_a_decoded_request_gets_an_answer_too(sent: dict[str, Any]) -> None:
    (answer,) = asyncio.run(intake().accept([Incoming(sent, "http", "orders")]))
    assert isinstance(answer, Accepted | Conflict | Malformed)


@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_bytes_get_an_answer(body: bytes) -> None:
    (answer,) = asyncio.run(intake().accept([Incoming(body, "amqp")]))
    assert isinstance(answer, Malformed)


@pytest.mark.parametrize("body", [b'{"id": "\\ud800"}', b'{"id": "a\\u0000b"}', b"\xff\xfe", b'{"id": "\xed\xa0\x80"}'])
async def test_what_no_store_can_keep_is_not_taken_for_an_id(body: bytes) -> None:
    (answer,) = await intake().accept([Incoming(body, "amqp")])
    assert isinstance(answer, Malformed)
    assert answer.id is None


@pytest.mark.parametrize(
    ("not_before", "expires_at"),
    [("2999-12-31T23:59:59Z", None), ("2999-12-31T23:00:00-12:00", None), (None, "2999-12-31T23:59:59Z")],
)
async def test_the_far_future_harms_nobody(not_before: str | None, expires_at: str | None) -> None:
    body = changed("not_before", not_before) | {"expires_at": expires_at}
    (answer,) = await intake().accept([Incoming(body, "http", "orders")])
    assert isinstance(answer, Accepted | Malformed)


# ------------------------------------------------------------------------------------------------------------- identity

objects = st.dictionaries(st.text(max_size=4), values, min_size=1, max_size=5)


def reordered(value: Any) -> Any:
    match value:
        case dict():
            return {key: reordered(value[key]) for key in reversed(value)}
        case list():
            return [reordered(item) for item in value]
        case _:
            return value


@given(objects, st.text())
def test_order_of_keys_whitespace_and_source_are_no_part_of_a_bodys_identity(body: dict[str, Any], source: str) -> None:
    same = orjson.loads(json.dumps(reordered(body) | {"source": source}, indent=3))
    assert canonical_hash(same) == canonical_hash(orjson.loads(orjson.dumps(body)))


@given(objects, objects)
def test_anything_else_is(one: dict[str, Any], other: dict[str, Any]) -> None:
    def meant(body: dict[str, Any]) -> str:
        return json.dumps({key: value for key, value in body.items() if key != "source"}, sort_keys=True)

    assert (canonical_hash(one) == canonical_hash(other)) is (meant(one) == meant(other))


@given(requests)
def test_any_change_of_a_request_is_another_body(other: dict[str, Any]) -> None:
    same = {**other, "source": ""} == {**FULL, "source": ""}
    if not same or json.dumps(other) == json.dumps(FULL):
        assert (canonical_hash(other) == canonical_hash(FULL)) is same


def test_the_order_of_channels_is_part_of_it() -> None:
    assert canonical_hash(changed("channels", ["sms", "push"])) != canonical_hash(changed("channels", ["push", "sms"]))


# ----------------------------------------------------------------------------------------------------- ids and instants

MILLISECOND = timedelta(milliseconds=1)


def years(first: int, last: int, zones: Any) -> st.SearchStrategy[datetime]:
    naive = NOW.replace(tzinfo=None)
    return st.datetimes(naive.replace(year=first), naive.replace(year=last), timezones=zones)


instants = years(1970, 2999, st.just(UTC))


def test_an_id_sorts_by_when_it_was_made() -> None:
    before = datetime.now(UTC)
    made = [new_id() for _ in range(2000)]
    after = datetime.now(UTC)
    assert len(set(made)) == len(made)
    assert [identity[:10] for identity in made] == sorted(identity[:10] for identity in made)
    assert oldest_id(before) <= min(made)
    assert max(made) < oldest_id(after + MILLISECOND)
    assert all(len(identity) == 26 and set(identity) <= set("0123456789abcdefghjkmnpqrstvwxyz") for identity in made)


@given(instants, instants)
def test_the_oldest_id_of_an_instant_bounds_those_of_all_later_ones(one: datetime, other: datetime) -> None:
    earlier, later = sorted([one, other])
    assert oldest_id(earlier) <= oldest_id(later)
    if later - earlier >= MILLISECOND:
        newest = oldest_id(earlier)[:10] + "z" * 16
        assert newest < oldest_id(later)


@given(years(2, 9998, st.timezones()))
def test_an_instant_survives_the_store_whatever_its_zone(at: datetime) -> None:
    assert instant(microseconds(at)) == at.astimezone(UTC)


@given(st.integers(-(2**55), 2**55))
def test_microseconds_survive_being_an_instant(us: int) -> None:
    assert microseconds(instant(us)) == us


@given(years(1001, 9998, st.timezones()))
def test_an_instant_is_written_in_utc_to_the_millisecond(at: datetime) -> None:
    written = rfc3339(at)
    assert written.endswith("Z")
    assert at.astimezone(UTC) - datetime.fromisoformat(written) < MILLISECOND


def test_microseconds_count_from_1970() -> None:
    assert microseconds(EPOCH) == 0
    assert microseconds(datetime(1970, 1, 1, 9, 0, 1, tzinfo=UTC)) == (9 * 3600 + 1) * 1_000_000


def test_a_state_is_written_as_it_is_named_in_the_contract() -> None:
    words = {"waiting", "sending", "sent", "delivered", "undelivered", "failed", "expired", "refused", "cancelled"}
    assert {state.value for state in MessageState} == words | {"unknown", "parked"}


@pytest.mark.parametrize("written", ["+447911123456", "+4407911123456"])
def test_one_phone_has_one_spelling(written: str) -> None:
    assert Profile(phone=written).phone == "+447911123456"
    request = SendRequest.model_validate(changed("to.phone", written))
    assert request.to is not None
    assert request.to.phone == "+447911123456"
