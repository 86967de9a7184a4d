"""Mail: how it is written, how the relay is spoken to, and what its replies mean."""

from __future__ import annotations

import asyncio
import email
import email.policy
import logging
import re
import ssl
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import providers
from providers import (
    Email,
    Misconfigured,
    ProviderError,
    Rejected,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
    read_bounce,
)
from providers._mail import Composer
from tests.contract.cases import ATTEMPT, MESSAGE, NOW, cases, dispatch, smtp_settings
from tests.contract.wire import RESET, SILENCE
from tests.vendors.smtp import Relay, flaw

if TYPE_CHECKING:
    from email.message import EmailMessage
    from pathlib import Path

CASE = cases()["smtp"]
MAIL = CASE.dispatch


def composed(content: Email, sender: str = "hello@example.com", **more: Any) -> EmailMessage:
    """As the standard library reads it, after a strict relay found no flaw in it."""
    mail = Composer(sender, lambda: NOW).compose(replace(MAIL, content=content, **more))
    assert flaw(mail.data, utf8=False) is None
    return email.message_from_bytes(mail.data, policy=email.policy.default)  # type: ignore[return-value]


def test_text_alone_and_html_alone_are_single_parts() -> None:
    text = composed(Email("s", text="Grüße\r\nzwei\rdrei\nvier"))
    assert text.get_content_type() == "text/plain"
    assert text.get_content() == "Grüße\r\nzwei\r\ndrei\r\nvier"
    html = composed(Email("s", html="<p>ü</p>"))
    assert html.get_content_type() == "text/html"
    assert html.get_content() == "<p>ü</p>"


def test_both_are_alternatives_the_richer_last() -> None:
    """RFC 2046, 5.1.4."""
    both = composed(Email("s", "text", "<p>html</p>"))
    assert both.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in both.iter_parts()] == ["text/plain", "text/html"]
    assert both.defects == []


def test_a_part_cannot_end_the_mail_or_its_part() -> None:
    body = "a\r\n.\r\n--=_decorum--\r\nMAIL FROM:<x@y>\r\n"
    assert [part.get_content() for part in composed(Email("s", body, body)).iter_parts()] == [body, body]


def test_no_body_at_all_is_rejected() -> None:
    with pytest.raises(Rejected):
        composed(Email("s"))


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=300).map(str.strip))
def test_any_subject_is_read_as_it_was_meant(subject: str) -> None:
    mail = Composer("hello@example.com", lambda: NOW).compose(replace(MAIL, content=Email(subject, "x")))
    head = mail.data.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    assert all(len(word) <= 75 for word in re.findall(rb"=\?\S*\?=", head) if b"=?utf-8?b?" in word)  # RFC 2047, 2
    raw = re.search(rb"Subject: (.*?)\r\n(?![ ])", head, re.DOTALL)
    assert raw is not None
    decoded = email.header.make_header(email.header.decode_header(raw[1].decode().replace("\r\n ", " ")))
    assert str(decoded) == subject


@pytest.mark.parametrize(
    ("sender", "name"),
    [
        ("Ann <hello@example.com>", "Ann"),
        ("hello@example.com", ""),
        ("<hello@example.com>", ""),
        ('"Smith, John (x)" <hello@example.com>', "Smith, John (x)"),
        ('A "B" \\ C <hello@example.com>', 'A "B" \\ C'),
        ("Ännchen, 你好 <hello@example.com>", "Ännchen, 你好"),
        ("=?utf-8?q?not_decoded?= <hello@example.com>", "=?utf-8?q?not_decoded?="),
    ],
)
def test_the_senders_name_survives(sender: str, name: str) -> None:
    (address,) = composed(Email("s", "x"), sender)["From"].addresses
    assert (address.display_name, address.addr_spec) == (name, "hello@example.com")


@pytest.mark.parametrize("control", ["\r\n", "\n", "\r", "\0", "\x0b", "\x1f", "\x7f", "\x85"])
async def test_no_header_or_command_can_be_broken_out_of(control: str, opened: Any, wired: Any) -> None:
    wire = await wired(CASE)
    provider = await opened(CASE.settings(wire.port))
    evil = f"{control}Bcc: eve@example.org"
    for bad in (
        replace(MAIL, address=f"ann{evil}@example.net"),
        replace(MAIL, address=f"ann@example.net{evil}"),
        replace(MAIL, content=Email(f"Hello{evil}", "x")),
        replace(MAIL, unsubscribe_url=f"https://m.example.com/u/42>{evil}"),
    ):
        with pytest.raises((Rejected, Unreachable)):
            await provider.send(bad)
    assert wire.connections == 0
    with pytest.raises(ValidationError):
        smtp_settings(1, sender=f"Ann{evil} <hello@example.com>")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ann",
        "ann@",
        "@example.net",
        "a b@example.net",
        "a,b@example.net",
        "<a@example.net>",
        "a@b@example.net",
        '"a b"@example.net',
        "a..b@example.net",
        f"{'a' * 65}@example.net",
        "a@exa mple.net",
        f"a@{'b' * 64}.net",
        "a@example.net>",
        "a@example.net SIZE=1",
        "a@\u2028.net",
        "a@example..net",
        "Ann <a@example.net>",
    ],
)
def test_what_is_no_address_is_unreachable(address: str) -> None:
    with pytest.raises(Unreachable):
        composed(Email("s", "x"), address=address)


@pytest.mark.parametrize(
    "url", ["https://m.example.com/u 42", "javascript:x", "https://m.example.com/<>", "https://ü/"]
)
def test_what_is_no_link_to_unsubscribe_is_rejected(url: str) -> None:
    with pytest.raises(Rejected):
        composed(Email("s", "x"), unsubscribe_url=url)


def test_one_click_needs_https() -> None:
    """RFC 8058, 3.1."""
    assert composed(Email("s", "x"), unsubscribe_url="http://localhost/u")["List-Unsubscribe-Post"] is None
    none = composed(Email("s", "x"), unsubscribe_url=None)
    assert none["List-Unsubscribe"] is None
    assert none["List-Unsubscribe-Post"] is None


async def test_an_international_domain_travels_in_ascii(opened: Any, serving: Any) -> None:
    """RFC 5891; the example is the registry's own."""
    relay, port = await serving(Relay)
    provider = await opened(CASE.settings(port))
    await provider.send(replace(MAIL, address="ann@bücher.example"))
    assert relay.mails[0].recipients == ("ann@xn--bcher-kva.example",)


async def test_an_international_mailbox_needs_a_relay_that_knows_how(opened: Any, serving: Any) -> None:
    """RFC 6531."""
    old, old_port = await serving(Relay)
    new, new_port = await serving(Relay, utf8=True)
    mail = replace(MAIL, address="jörg@example.net")
    with pytest.raises(Rejected) as caught:
        await (await opened(CASE.settings(old_port))).send(mail)
    assert caught.value.code == "smtputf8"
    assert "MAIL" not in old.commands
    await (await opened(CASE.settings(new_port))).send(mail)
    assert new.mails[0].recipients == ("jörg@example.net",)


@pytest.mark.parametrize(
    ("word", "becomes"),
    [
        # RFC 5321, 4.2.3 and RFC 3463.
        ("rcpt-550", Unreachable),
        ("rcpt-550-5.1.1", Unreachable),
        ("rcpt-550-5.2.1", Unreachable),
        ("rcpt-550-5.7.1", Rejected),
        ("rcpt-551", Unreachable),
        ("rcpt-553-5.1.3", Unreachable),
        ("rcpt-552-5.2.2", Rejected),
        ("rcpt-554", Rejected),
        ("rcpt-501-5.1.3", Rejected),
        ("rcpt-530-5.7.0", Misconfigured),
        ("rcpt-421", Throttled),
        ("rcpt-450-4.2.1", Throttled),
        ("rcpt-451-4.7.1", Throttled),
        ("rcpt-452", Throttled),
        ("rcpt-454", Throttled),
        ("rcpt-455", Unavailable),
        ("data-550-5.7.1", Rejected),
        ("data-451", Throttled),
        ("lost-reset", Unavailable),
        ("lost-silence", Unavailable),
        ("reset", Unconfirmed),
        ("silence", Unconfirmed),
    ],
)
async def test_a_reply_about_one_person_harms_no_other(
    word: str, becomes: type[ProviderError], opened: Any, serving: Any
) -> None:
    relay, port = await serving(Relay)
    patience = 0.2 if "silence" in word else 5
    provider = await opened(smtp_settings(port, timeout=patience, data_timeout=patience, concurrency=1))
    address = f"steer-{word}@example.net"
    with pytest.raises(ProviderError) as caught:
        await provider.send(replace(MAIL, address=address))
    assert type(caught.value) is becomes
    assert address not in str(caught.value)
    await provider.send(MAIL)
    assert relay.mails[-1].recipients == (MAIL.address,)
    # Only what left the conversation in doubt cost the connection, and a refused mail was ended by RSET.
    doubt = becomes in {Unavailable, Unconfirmed}
    assert relay.connections == (2 if doubt or word == "rcpt-421" else 1)
    assert ("RSET" in relay.commands) == (relay.connections == 1)


@pytest.mark.parametrize(
    ("stage", "answer", "becomes"),
    [
        ("", b"421 4.3.2 not now\r\n", Throttled),
        ("", b"554 5.7.1 no\r\n", Unavailable),
        ("", b"<html>\r\n", Unavailable),
        ("", RESET, Unavailable),
        ("", SILENCE, Unavailable),
        ("EHLO", SILENCE, Unavailable),
        ("EHLO", RESET, Unavailable),
        ("MAIL", b"421 4.3.2 not now\r\n", Throttled),
        ("MAIL", b"530 5.7.0 log in\r\n", Misconfigured),
        ("MAIL", b"550 5.7.1 not you\r\n", Misconfigured),
        ("MAIL", b"552 5.3.4 too big\r\n", Rejected),
        ("MAIL", SILENCE, Unavailable),
        ("MAIL", RESET, Unavailable),
        ("MAIL", b"huh\r\n", Unavailable),
        ("DATA", b"250 ok\r\n", Unavailable),
        ("DATA", b"451 4.3.0 later\r\n", Throttled),
        ("DATA", b"554 5.5.1 nobody\r\n", Rejected),
        ("DATA", SILENCE, Unavailable),
        ("DATA", RESET, Unavailable),
    ],
)
async def test_before_the_text_nothing_was_sent(
    stage: str, answer: Any, becomes: type[ProviderError], opened: Any, wired: Any
) -> None:
    wire = await wired(CASE, stages={stage: answer})
    provider = await opened(smtp_settings(wire.port, timeout=0.2 if answer is SILENCE else 5))
    with pytest.raises(ProviderError) as caught:
        await provider.send(MAIL)
    assert type(caught.value) is becomes
    assert wire.requests == []


@pytest.mark.parametrize("stage", ["EHLO", "MAIL", "RCPT"])
async def test_whose_time_ran_out_before_the_text_sends_none(stage: str, opened: Any, serving: Any) -> None:
    """As a worker that was paused in the middle of a dialogue: by then another may have the message."""
    relay, port = await serving(Relay)
    provider = await opened(smtp_settings(port), lambda: MAIL.deadline if stage in relay.commands else NOW)
    with pytest.raises(Unavailable) as caught:
        await provider.send(MAIL)
    assert caught.value.code == "deadline"
    assert relay.mails == []
    await provider.send(replace(MAIL, deadline=datetime.max.replace(tzinfo=UTC)))
    assert len(relay.mails) == 1


async def test_the_wait_after_the_final_dot_is_its_own(opened: Any, wired: Any) -> None:
    """RFC 5321, 4.5.3.2.6: whoever gives up there sends twice."""
    wire = await wired(CASE, answer=SILENCE)
    provider = await opened(smtp_settings(wire.port, timeout=0.1, data_timeout=60))
    sending = asyncio.create_task(provider.send(MAIL))
    await wire.received()
    done, _ = await asyncio.wait([sending], timeout=0.3)
    assert not done
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


# Where bounces go, and what they tell.


async def test_a_bounce_goes_to_an_address_of_the_attempts_own(opened: Any, serving: Any) -> None:
    relay, port = await serving(Relay)
    provider = await opened(smtp_settings(port, bounces="bounces@m.example.com"))
    another = "0sgdpj5016zyc4xdtqys7wkyxb"
    await provider.send(MAIL)
    await provider.send(replace(MAIL, attempt=another))
    assert [mail.sender for mail in relay.mails] == [
        f"bounces+{attempt}@m.example.com" for attempt in (ATTEMPT, another)
    ]
    assert relay.connections == 1
    for mail, attempt in zip(relay.mails, (ATTEMPT, another), strict=True):
        read = email.message_from_bytes(mail.content, policy=email.policy.default)
        assert read["From"].addresses[0].addr_spec == "hello@example.com"  # type: ignore[union-attr]
        assert read["X-Decorum-Attempt"] == attempt
        assert read_bounce(b"", mail.sender).references == (attempt,)


async def test_the_longest_bounce_address_is_no_longer_than_one_may_be(opened: Any, serving: Any) -> None:
    """RFC 5321, 4.5.3.1.1."""
    relay, port = await serving(Relay)
    await (await opened(smtp_settings(port, bounces=f"{'b' * 37}@m.example.com"))).send(MAIL)
    assert len(relay.mails[0].sender.partition("@")[0]) == 64


@pytest.mark.parametrize("bounces", [None, "bounces@m.example.com"])
async def test_a_relay_that_knows_how_is_asked_to_report(bounces: str | None, opened: Any, wired: Any) -> None:
    """RFC 3461, 4: of failures and delays, with the attempt's id, and with no more of the mail than its header."""
    wire = await wired(CASE, stages={"EHLO": b"250-wire\r\n250 DSN\r\n"})
    await (await opened(smtp_settings(wire.port, bounces=bounces))).send(MAIL)
    sender = f"bounces+{ATTEMPT}@m.example.com" if bounces else "hello@example.com"
    asked = f"FROM:<{sender}> RET=HDRS ENVID={ATTEMPT} TO:<ann@example.net> NOTIFY=FAILURE,DELAY"
    assert [request.target for request in wire.requests] == [asked]


# The relay and its connections.


async def test_a_connection_is_worn_out_after_its_uses(opened: Any, serving: Any) -> None:
    relay, port = await serving(Relay)
    provider = await opened(smtp_settings(port, max_uses=2))
    for _ in range(5):
        await provider.send(MAIL)
    assert relay.connections == 3


async def test_a_connection_grows_too_old(opened: Any, serving: Any) -> None:
    relay, port = await serving(Relay)
    provider = await opened(smtp_settings(port, max_age=1e-9))
    for _ in range(3):
        await provider.send(MAIL)
    assert relay.connections == 3


async def test_a_connection_that_idled_is_tested_first(opened: Any, serving: Any) -> None:
    relay, port = await serving(Relay)
    provider = await opened(smtp_settings(port, idle_check=0))
    for _ in range(3):
        await provider.send(MAIL)
    assert relay.connections == 1
    assert relay.commands.count("RSET") == 2


async def test_a_connection_that_the_relay_forgot_costs_nothing(opened: Any, wired: Any) -> None:
    wire = await wired(CASE, stages={"RSET": RESET})
    provider = await opened(smtp_settings(wire.port, idle_check=0))
    await provider.send(MAIL)
    await provider.send(MAIL)
    assert (len(wire.requests), wire.connections) == (2, 2)


async def test_there_are_never_more_connections_than_allowed(opened: Any, serving: Any) -> None:
    relay, port = await serving(Relay)
    provider = await opened(smtp_settings(port, concurrency=3))
    await asyncio.gather(*[provider.send(MAIL) for _ in range(30)])
    assert (relay.connections, len(relay.mails)) == (3, 30)


async def test_a_lost_place_is_given_back(opened: Any, wired: Any) -> None:
    wire = await wired(CASE, stages={"MAIL": SILENCE})
    provider = await opened(smtp_settings(wire.port, concurrency=1, timeout=0.1))
    for _ in range(3):
        with pytest.raises(Unavailable):
            await provider.send(MAIL)
    wire.stages.clear()
    assert await provider.send(MAIL)


async def test_goodbye_is_said(opened: Any, serving: Any) -> None:
    relay, port = await serving(Relay)
    provider = await opened(smtp_settings(port))
    await provider.send(MAIL)
    await provider.close()
    assert relay.commands[-1] == "QUIT"


async def test_a_closed_provider_keeps_nothing(opened: Any, wired: Any) -> None:
    wire = await wired(CASE, answer=SILENCE)
    provider = await opened(smtp_settings(wire.port))
    sending = asyncio.create_task(provider.send(MAIL))
    await wire.received()
    await provider.close()
    with pytest.raises(Unconfirmed):
        await sending


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mail_and_password_go_over_tls(
    security: str,
    opened: Any,
    serving: Any,
    server_context: ssl.SSLContext,
    ca_file: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "aiosmtplib")
    relay, port = await serving(Relay, tls=server_context, implicit=security == "tls", login=("ann", "open sesame"))
    settings = smtp_settings(port, security=security, ca_file=ca_file, username="ann", password="open sesame")
    provider = await opened(settings, lambda: datetime.now(UTC))
    mail = dispatch("ann@example.net", Email("s", "x"), deadline=datetime.max.replace(tzinfo=UTC))
    assert await provider.send(mail) == f"<{MESSAGE}@example.com>"
    await provider.send(mail)
    assert (relay.connections, len(relay.mails)) == (1, 2)
    assert (
        "open sesame" not in f"{settings!r} {provider!r} {vars(provider)!r} {settings.model_dump_json()} {caplog.text}"
    )


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_relay_that_cannot_show_who_it_is_gets_nothing(
    security: str, opened: Any, serving: Any, server_context: ssl.SSLContext
) -> None:
    relay, port = await serving(Relay, tls=server_context, implicit=security == "tls")
    provider = await opened(smtp_settings(port, security=security))
    with pytest.raises(Unavailable) as caught:
        await provider.send(MAIL)
    assert caught.value.code == "tls"
    assert "MAIL" not in relay.commands


async def test_starttls_is_not_forgone(opened: Any, serving: Any) -> None:
    relay, port = await serving(Relay)
    provider = await opened(smtp_settings(port, security="starttls"))
    with pytest.raises(Misconfigured):
        await provider.send(MAIL)
    assert "MAIL" not in relay.commands


async def test_a_wrong_password_is_our_fault(
    opened: Any, serving: Any, server_context: ssl.SSLContext, ca_file: str
) -> None:
    _, port = await serving(Relay, tls=server_context, login=("ann", "open sesame"))
    settings = smtp_settings(port, security="starttls", ca_file=ca_file, username="ann", password="open barley")
    provider = await opened(settings)
    with pytest.raises(Misconfigured) as caught:
        await provider.send(MAIL)
    assert caught.value.code == "smtp_535"
    assert "barley" not in repr(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "mail.example.com"},
        {"host": "192.0.2.1"},
        {"username": "ann"},
        {"password": "open sesame"},
        {"sender": "nobody"},
        {"sender": "a@example.com, b@example.com"},
        {"sender": "jörg@example.com"},
        {"helo": "a b"},
        {"bounces": "bounces"},
        {"bounces": "Bounces <bounces@m.example.com>"},
        {"bounces": "bounces@m.example.com> SIZE=1"},
        {"bounces": "jörg@m.example.com"},
        {"bounces": f"{'b' * 38}@m.example.com"},
        {"ca_file": "/nowhere/ca.pem"},
    ],
)
def test_unsafe_settings_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        smtp_settings(1, **wrong)
    assert "sesame" not in str(caught.value)


def test_an_unsafe_relay_can_be_insisted_on() -> None:
    assert smtp_settings(1, host="mail.example.com", insecure=True)
    assert providers.settings_of("smtp").model_validate({"host": "h", "sender": "a@example.com"}).security == "starttls"  # type: ignore[attr-defined]
