"""Is a webhook's call signed as others read it, repeated as the standard says, and made to nobody inside?"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import accumulate

import pytest
import standardwebhooks
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.webhooks.addresses import anywhere, outside
from gateway.webhooks.standard import (
    Answer,
    Outcome,
    abreast,
    meaning,
    next_call,
    secret,
    signed,
    spared,
)
from gateway.webhooks.topics import matches, pattern
from tests.examples import examples

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""Of the standard's own libraries' tests, as is what it signs."""
FAILED = Answer(Outcome.STATUS, "http_500")
MINUTE = timedelta(minutes=1)

# ----------------------------------------------------------------------------------------------------------- signatures


def test_the_signature_is_that_of_the_standards_own_example() -> None:
    """https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/python/tests/test_webhooks.py"""
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}', [secret(SECRET)])
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(st.binary(min_size=24, max_size=64), st.dictionaries(st.text(), st.text()), st.integers(1, 3))
@settings(max_examples=examples(50), deadline=None)
def test_each_of_several_secrets_alone_is_enough_for_a_receiver(key: bytes, event: dict[str, str], others: int) -> None:
    receiver = standardwebhooks.Webhook(key)
    body = json.dumps(event).encode()
    keys = [bytes([number]) * 24 for number in range(others)]
    for place in range(others + 1):
        headers = signed("0sgdpj5016zyc4xdtqys7wkyxb", datetime.now(UTC), body, [*keys[:place], key, *keys[place:]])
        assert receiver.verify(body, headers) == event


@pytest.mark.parametrize("changed", ["body", "webhook-id", "webhook-timestamp", "key"])
def test_whatever_is_changed_on_the_way_is_noticed(changed: str) -> None:
    now = datetime.now(UTC)
    headers, body = signed("e1", now, b"{}", [b"k" * 24 if changed != "key" else b"o" * 24]), b"{}"
    if changed == "body":
        body = b"{} "
    elif changed == "webhook-id":
        headers[changed] = "e2"
    elif changed == "webhook-timestamp":
        headers[changed] = str(int(headers[changed]) + 1)
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="No matching signature"):
        standardwebhooks.Webhook(b"k" * 24).verify(body, headers)


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_secret_is_24_to_64_bytes(length: int) -> None:
    assert secret(f"whsec_{b64encode(bytes(length)).decode()}") == bytes(length)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_" + "A" * 28,  # 21 bytes
        "whsec_" + "A" * 88,  # 66 bytes
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa\nSw",
        "whsec_ééééééééééééééééééééééééééééééééé",
    ],
)
def test_what_is_no_secret_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_ and the base64 of 24 to 64 bytes; echo ") as caught:
        secret(text)
    assert "MfKQ" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- schedule


def test_what_fails_is_called_again_as_the_standard_says_over_three_days() -> None:
    """The standard's table under "Deliverability and reliability": hours, minutes and seconds since the first call."""
    table = "00:00:05 00:05:05 00:35:05 02:35:05 07:35:05 17:35:05 31:35:05 51:35:05 75:35:05"
    wanted = [timedelta(hours=int(at[:2]), minutes=int(at[3:5]), seconds=int(at[6:])) for at in table.split()]
    waits = [next_call("e1", calls, FAILED) for calls in range(1, 11)]
    assert waits[-1] is None, "then it is given up"
    made = list(accumulate(wait for wait in waits if wait is not None))
    assert len(made) == len(wanted)
    for at, least in zip(made, wanted, strict=True):
        assert least <= at <= least * 1.1


def test_what_failed_together_does_not_come_back_together() -> None:
    waits = {next_call(f"e{number}", 9, FAILED) for number in range(1000)}
    assert len(waits) > 900
    assert max(filter(None, waits)) - min(filter(None, waits)) > timedelta(hours=2)
    assert next_call("e1", 9, FAILED) == next_call("e1", 9, FAILED)


def test_who_asks_for_time_gets_it_and_never_less_than_the_schedule_has() -> None:
    asked = Answer(Outcome.STATUS, "http_429", timedelta(hours=3))
    assert next_call("e1", 1, asked) == timedelta(hours=3)
    assert next_call("e1", 9, asked) == next_call("e1", 9, FAILED)
    assert next_call("e1", 1, Answer(Outcome.STATUS, "http_429", timedelta(0))) == next_call("e1", 1, FAILED)
    assert next_call("e1", 10, asked) is None


def test_a_webhook_that_keeps_failing_is_called_ever_more_rarely_and_one_call_at_a_time() -> None:
    assert [spared(failed, timedelta(0), FAILED) for failed in (1, 4, 5)] == [
        timedelta(0),
        timedelta(0),
        timedelta(seconds=1),
    ]
    assert spared(9, timedelta(seconds=20), FAILED) == timedelta(seconds=20)
    assert spared(9, timedelta(hours=20), FAILED) == MINUTE
    assert spared(1, timedelta(0), Answer(Outcome.STATUS, "http_503", MINUTE * 5)) == MINUTE * 5
    assert [abreast(failed, 20) for failed in (0, 4, 5, 500)] == [20, 20, 1, 1]


def test_two_hundreds_are_a_yes_and_410_is_a_no_for_ever() -> None:
    assert {status for status in range(100, 600) if meaning(status) is Outcome.TAKEN} == set(range(200, 300))
    assert {status for status in range(100, 600) if meaning(status) is Outcome.GONE} == {410}


# --------------------------------------------------------------------------------------------------------------- topics


@pytest.mark.parametrize(
    ("text", "key", "is_one"),
    [
        ("*.stock.#", "usd.stock", True),  # the examples of AMQP 0-9-1, 3.1.3.3
        ("*.stock.#", "eur.stock.db", True),
        ("*.stock.#", "stock.nasdaq", False),
        ("message.*", "message.sent", True),
        ("message.*", "message", False),
        ("message.*", "message.sent.twice", False),
        ("message.delivered", "message.delivered", True),
        ("message.delivered", "message.undelivered", False),
        ("#", "message.sent", True),
        ("#.sent", "sent", True),
        ("message.#", "message", True),
        ("#.*", "a.b.c", True),
    ],
)
def test_patterns_are_those_of_topic_exchanges(text: str, key: str, is_one: bool) -> None:
    assert matches(pattern(text), key) is is_one


words = st.lists(st.sampled_from(["a", "b", "message"]), min_size=1, max_size=5).map(".".join)
patterns = st.lists(st.sampled_from(["a", "b", "message", "*", "#"]), min_size=1, max_size=6).map(".".join)


@given(patterns, words)
@settings(max_examples=examples(300), deadline=None)
def test_a_pattern_matches_what_a_regular_expression_made_of_it_does(text: str, key: str) -> None:
    made = "".join(
        r"(?:\w+\.)*" if word == "#" else r"\w+\." if word == "*" else rf"{word}\." for word in text.split(".")
    )
    assert matches(text, key) is bool(re.fullmatch(made, f"{key}."))


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a b", "a.*b", "##", "é", "a\n", ".".join("a" * 9)])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="words between dots"):
        pattern(text)


# ------------------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "::1"),  # this machine
        *("0.0.0.0", "0.1.2.3", "::"),
        *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1", "fec0::1"),
        *("169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254"),  # where clouds keep their metadata
        *("100.64.0.0", "100.127.255.255"),
        *("224.0.0.1", "239.255.255.255", "ff02::1"),
        *("240.0.0.1", "255.255.255.255", "192.0.0.1", "198.18.0.1"),
        *("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:10.0.0.1", "::127.0.0.1"),
        *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2001:0:7f00:1::", "100::1"),
    ],
)
def test_what_leads_inside_must_not_be_called(address: str) -> None:
    assert not outside(ip_address(address))
    assert anywhere(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "169.253.255.255"),
        *("2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
    ],
)
def test_what_leads_outside_may_be_called(address: str) -> None:
    assert outside(ip_address(address))


v4 = st.integers(0, 2**32 - 1).map(IPv4Address) | st.sampled_from(
    ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4"]
).map(IPv4Network).flatmap(lambda network: st.integers(0, network.num_addresses - 1).map(lambda n: network[n]))
v6 = st.integers(0, 2**128 - 1).map(IPv6Address) | st.sampled_from(
    ["::/96", "fc00::/7", "fe80::/10", "ff00::/8", "2000::/3", "2001::/23", "2001:db8::/32"]
).map(IPv6Network).flatmap(lambda network: st.integers(0, network.num_addresses - 1).map(lambda n: network[n]))


@given(v4 | v6)
@settings(max_examples=examples(1000), deadline=None)
def test_nothing_that_python_knows_to_be_special_may_be_called(address: IPv4Address | IPv6Address) -> None:
    special = (
        address.is_private,
        address.is_loopback,
        address.is_link_local,
        address.is_multicast,
        address.is_reserved,
        address.is_unspecified,
        not address.is_global,
    )
    if any(special):
        assert not outside(address)


@given(v4)
@settings(max_examples=examples(300), deadline=None)
def test_an_address_that_holds_another_leads_where_that_one_does(address: IPv4Address) -> None:
    held = int(address)
    mapped, translated = IPv6Address(0xFFFF << 32 | held), IPv6Address(0x64FF9B << 96 | held)
    assert str(mapped.ipv4_mapped) == str(address)
    assert outside(mapped) is outside(translated) is outside(address)
    for other in (IPv6Address(held), IPv6Address(0x2002 << 112 | held << 80), IPv6Address(0x20010000 << 96 | held)):
        assert not outside(other), "IPv4-compatible, 6to4 and Teredo have had their day"


@given(v4)
@settings(max_examples=examples(300), deadline=None)
def test_what_python_knows_to_be_global_may_be_called_but_for_what_is_no_more(address: IPv4Address) -> None:
    given_up = IPv4Network("192.88.99.0/24"), IPv4Network("192.0.0.0/24")
    if address.is_global and not address.is_multicast and not any(address in network for network in given_up):
        assert outside(address)
