"""Every sentence that support agents may have to read aloud: true, whole, and right by the person's clock."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import providers
from gateway.causes import ERRORS, REASONS, briefly, of_error
from gateway.message import AttemptState, MessageState, Refusal, rfc3339
from gateway.outcome import BUG
from gateway.rulings import why_json
from gateway.sentences import STATES, of_eligibility, of_message
from gateway.whereabouts import ZoneSource
from providers import Channel, ProviderError, fcm, smtp
from ratelimit import Ruling, clock, zone, zone_names

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
TOKYO = "Asia/Tokyo"
NOW = datetime(2026, 11, 25, 1, 0, tzinfo=UTC)
"""10:00 in Tokyo, on a Wednesday."""
READABLE = re.compile(r"[A-Z][^{}\n]*[^ ,;:]\.")
JARGON = re.compile(r"None|null|\bTrue\b|\bFalse\b|\bspan\b|\bhorizon\b|\bclaim|\bintent\b|\blease|_sent|opted_out|  ")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT|\d\d:\d\d:\d\d|\dZ\b|\+00:00")


def ruling(rule: str = "daily", why: str = "2 of 2 contacts in 24 h", **more: Any) -> dict[str, Any]:
    return {"rule": rule, "permits": False, "next": rfc3339(NOW + timedelta(hours=3)), "why": why} | more


def decision(state: str, reason: str, **more: Any) -> dict[str, Any]:
    return {"at": rfc3339(NOW), "state": state, "reason": reason, "until": None, "policy": 7, "why": []} | more


def attempt(state: str, error: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "number": 1,
        "repeats": None,
        "channel": "sms",
        "provider": "text",
        "policy": 7,
        "state": state,
        "begun_at": rfc3339(NOW),
        "ended_at": None,
        "reference": None,
        "error": error,
    } | more


def present(would: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "at": rfc3339(NOW),
        "policy": 7,
        "behind": None,
        "would": would,
        "next": rfc3339(NOW + timedelta(hours=3)),
        "channel": "sms",
        "rules": [],
        "instead": [],
    } | more


GOES = {"state": "attempting", "channel": "sms", "provider": "text"}


def waits(reason: str, *, will_expire: bool = False, **more: Any) -> dict[str, Any]:
    until = rfc3339(NOW + timedelta(hours=3))
    return {"state": "waiting", "reason": reason, "until": until, "will_expire": will_expire} | more


def view(state: str = "waiting", **more: Any) -> dict[str, Any]:
    return {
        "message": "m1",
        "id": "r1",
        "source": "loans",
        "user": "hana",
        "category": "news",
        "channels": ["sms"],
        "priority": "bulk",
        "campaign": None,
        "state": state,
        "reason": None,
        "accepted_at": rfc3339(NOW),
        "not_before": rfc3339(NOW),
        "expires_at": rfc3339(NOW + timedelta(days=3)),
        "due_at": rfc3339(NOW),
        "until": None,
        "decisions": [],
        "attempts": [],
        "acts": [],
        "asked_at": rfc3339(NOW),
        "zone": TOKYO,
        "zone_source": "phone",
        "zones": [TOKYO],
        "opted_out": [],
        "suppressed": [],
        "now": present(GOES) if state == "waiting" else None,
    } | more


def text(**more: Any) -> str:
    sentences = of_message(view(**more))
    check(sentences)
    return " ".join(sentences)


def check(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        assert READABLE.fullmatch(sentence), sentence
        assert not JARGON.search(sentence), sentence
        assert not STAMP.search(sentence), sentence


# --------------------------------------------------------------------------------------------------------- completeness


def test_every_state_every_refusal_and_every_error_has_its_words() -> None:
    assert set(STATES) == set(MessageState)
    assert set(Refusal) <= set(REASONS)
    kinds = {kind.__name__.lower() for kind in ProviderError.__subclasses__()}
    assert kinds == {kind.__name__.lower() for kind in vars(providers).values() if _is_error(kind)}
    assert kinds <= set(ERRORS)


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, ProviderError) and kind is not ProviderError


def reasons() -> set[str]:
    """Those that are spelt out where messages are put off, ended, or recorded."""
    found = set()
    for name in ("decide", "store/work", "store/writes", "store/upkeep", "store/known"):
        for node in ast.walk(ast.parse((ROOT / "gateway" / f"{name}.py").read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            name_ = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            if isinstance(node, ast.Call) and name_ in ("Deferred", "Ended", "_ended", "_record", "Outcome"):
                values = [*node.args[1:], *(word.value for word in node.keywords if word.arg == "error")]
                values += [way for a in values if isinstance(a, ast.IfExp) for way in (a.body, a.orelse)]
                found |= {a.value for a in values if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found


def test_every_reason_that_the_code_spells_out_has_its_words() -> None:
    spelt = reasons()
    assert {"retry", "throttled", "expires_at", "unknown_category", "shadow", "next_channel", "crash"} <= spelt
    assert spelt - {"accepted"} <= REASONS.keys() | ERRORS.keys()


def codes() -> set[str]:
    """Kind and code of each error that a provider spells out."""
    kinds = {kind.__name__ for kind in ProviderError.__subclasses__()}
    return {
        f"{node.func.id.lower()}:{node.args[0].value}"
        for path in (ROOT / "providers").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds
        if node.args and isinstance(node.args[0], ast.Constant)
    }


def test_every_code_that_a_provider_spells_out_has_its_words() -> None:
    spelt = codes() | {f"unavailable:{word}" for _, word in smtp.WORDS} | {f"rejected:{code}" for code in fcm.CODES}
    assert {"misconfigured:unsupported", "unavailable:deadline", "unreachable:INVALID_TOKEN"} <= spelt
    assert [error for error in sorted(spelt) if of_error(error) == of_error(f"{error.partition(':')[0]}:42")] == []


@pytest.mark.parametrize(
    ("error", "means"),
    [
        ("misconfigured:unsupported", "no STARTTLS"),
        ("unavailable:dns", "name is not known"),
        ("unconfirmed:http_502", "error of its own"),
        ("unreachable:smtp_550", "no such mailbox"),  # RFC 5321, 4.2.3: to RCPT
        ("misconfigured:smtp_550", "as this sender"),  # to MAIL
        ("rejected:smtp_557", "for good"),
        ("receipt:5.1.1", "no such mailbox"),  # RFC 3463, 3.2
        ("receipt:5.1.2", "mail domain"),
        ("receipt:5.1.10", "takes no mail"),  # RFC 7505, 4.2: null MX
        ("receipt:5.2.1", "disabled"),
        ("receipt:5.2.2", "full"),
        ("receipt:5.3.4", "larger"),
        ("receipt:4.4.7", "all the time"),
        ("receipt:5.7.1", "policy"),
        ("receipt:5.7.23", "SPF"),  # RFC 7372, 3.2
        ("receipt:5.4.99", "the way to"),  # RFC 3463, 2: by its subject
        ("receipt:5.7.509", "policy or security"),
    ],
)
def test_what_a_code_means_is_told_whatever_the_vendor(error: str, means: str) -> None:
    kind, code = error.split(":")
    assert of_error(error).startswith(f"{ERRORS[kind]}: ")
    assert means in of_error(error)
    assert of_error(error).endswith(f" ({error})")
    assert means in briefly(error)
    assert briefly(error).endswith(f" ({code})")


@pytest.mark.parametrize(
    "error", ["receipt:30005", "receipt:refused", "rejected:21612", "receipt:5.0.0", "receipt:x.1.1"]
)
def test_what_only_a_vendor_knows_is_not_guessed(error: str) -> None:
    assert of_error(error) == f"{ERRORS[error.partition(':')[0]]} ({error})"


@pytest.mark.parametrize("state", MessageState)
def test_every_state_opens_the_text(state: MessageState) -> None:
    assert text(state=state).startswith(
        f"Message m1 {STATES[state]}. It is request r1 of loans for hana: category news,"
    )


# -------------------------------------------------------------------------------------------------------------- endings


@pytest.mark.parametrize("reason", [*Refusal, "expires_at", "unknown_category", "cancelled", BUG, "unknown"])
def test_an_end_says_when_under_which_policy_and_why(reason: str) -> None:
    said = text(state="refused", decisions=[decision("refused", reason)])
    assert f"That was decided at 10:00 under policy version 7, because {REASONS[reason]}." in said


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("state", [AttemptState.NOT_SENT, AttemptState.UNKNOWN, AttemptState.UNDELIVERED])
def test_an_error_is_told_in_words_and_by_its_code(kind: str, state: AttemptState) -> None:
    said = text(state="failed", decisions=[decision("failed", f"{kind}:42")], attempts=[attempt(state, f"{kind}:42")])
    assert "That was decided at 10:00 under policy version 7, after its last attempt." in said
    assert f", because {ERRORS[kind]} ({kind}:42)." in said


def test_an_error_that_nobody_has_words_for_is_named() -> None:
    assert "because of the error odd:1." in text(state="failed", attempts=[attempt("rejected", "odd:1")])


@pytest.mark.parametrize("state", [AttemptState.ACCEPTED, AttemptState.DELIVERED, AttemptState.INTENT])
def test_an_error_of_an_earlier_time_is_not_held_against_what_went_well(state: AttemptState) -> None:
    assert "timeout" not in text(state="sent", attempts=[attempt(state, "unconfirmed:timeout")])


@pytest.mark.parametrize("state", AttemptState)
def test_every_attempt_is_told(state: AttemptState) -> None:
    said = text(state="sent", attempts=[attempt(state, reference="V-42")])
    assert "Attempt 1, at 10:00, by sms through provider text (policy version 7): " in said
    assert "Its reference there is V-42." in said


def test_a_repeat_by_its_key_says_what_it_repeats() -> None:
    said = text(state="sent", attempts=[attempt("unknown"), attempt("accepted", number=2, repeats=1)])
    assert said.count("under the same key") == 1
    assert "It repeats attempt 1 under the same key" in said


def test_what_took_the_place_of_a_collapsed_one_is_named() -> None:
    why = [ruling("collapsed", "message m2 is newer", next=None)]
    said = text(state="refused", decisions=[decision("refused", "collapsed", why=why)])
    assert "took its place: message m2 is newer." in said
    assert "Rule collapsed" not in said


def test_only_the_last_steps_are_told_and_how_many_there_were() -> None:
    steps = [decision("waiting", f"rule-{n}", until=rfc3339(NOW + timedelta(hours=n + 1))) for n in range(12)]
    said = text(decisions=steps)
    assert "Of the 12 steps so far these were the last." in said
    assert "rule-11" in said
    assert "rule-6" not in said


# ---------------------------------------------------------------------------------------------------------- what waits


@pytest.mark.parametrize(
    ("now", "more", "said"),
    [
        (present(GOES), {}, "Nothing holds it back: it goes by sms through provider text in a moment."),
        (
            present(GOES),
            {"due_at": rfc3339(NOW + timedelta(hours=1))},
            "Nothing holds it back any more: it goes by sms through provider text at 11:00 at the latest.",
        ),
        (
            present(GOES, at=rfc3339(NOW + timedelta(seconds=30))),
            {},
            "As things stand, it goes by sms through provider text within a minute.",
        ),
        (
            present(GOES, at=rfc3339(NOW + timedelta(days=1))),
            {"not_before": rfc3339(NOW + timedelta(days=1))},
            (
                "The request asks that it is not sent before 10:00 tomorrow.\n"
                "As things stand, it goes by sms through provider text at 10:00 tomorrow."
            ),
        ),
        (
            present(GOES, behind="m0"),
            {},
            (
                "It stands in line behind message m0 of the same person, which goes first.\n"
                "Nothing else holds it back: it goes by sms through provider text when it is its turn."
            ),
        ),
        (
            present(waits("daily"), rules=[ruling()]),
            {},
            (
                "It can go at 13:00 at the earliest, the first moment that all rules permit.\n"
                "Rule daily holds it back: 2 of 2 contacts in 24 h."
            ),
        ),
        (
            present(waits("daily"), rules=[ruling()], behind="m0"),
            {},
            "It can go at 13:00 at the earliest, the first moment that all rules permit, when it is its turn.",
        ),
        (
            present(waits("daily", will_expire=True), rules=[ruling()]),
            {},
            "It cannot go before it expires: the rules do not permit it in time; they would permit it from 13:00 on.",
        ),
        (
            present(
                waits("daily", will_expire=True),
                next=None,
                rules=[
                    ruling(
                        held_by=[
                            {
                                "message": "m0",
                                "channel": "sms",
                                "category": "news",
                                "campaign": "spring",
                                "at": rfc3339(NOW - timedelta(days=1)),
                            }
                        ]
                    )
                ],
            ),
            {},
            (
                "It cannot go before it expires: the rules do not permit it in time,"
                " unless a place under the caps is given back.\n"
                "Rule daily holds it back: 2 of 2 contacts in 24 h. The place is taken by the sms at 10:00 yesterday.\n"
                "The sms at 10:00 yesterday is message m0, category news, campaign spring."
            ),
        ),
        (
            present(waits("throttled")),
            {},
            "It is put off until 13:00, because its providers have asked to be sent less for now.",
        ),
        (
            present({"state": "refused", "reason": "opted_out"}, channel=None, next=None),
            {"opted_out": [{"by": "person", "channel": "sms", "category": "news", "topic": "rates"}]},
            (
                "it will be refused, because the person, or the address itself, has opted out.\n"
                "On record: the person has opted out of category news and topic rates by sms."
            ),
        ),
        (
            present({"state": "refused", "reason": "opted_out"}, channel=None, next=None),
            {"opted_out": [{"by": "person", "category": "*", "topic": "*"}]},
            "On record: the person has opted out of all that can be unsubscribed from and topic *.",
        ),
        (
            present({"state": "failed", "reason": "rejected:1"}, channel=None, next=None),
            {},
            "When it is looked at next, it will be given up, because the provider will never take this message",
        ),
        (
            present(
                waits("daily"),
                rules=[ruling()],
                instead=[{"channel": "email", "rules": [ruling("night", "it is late")]}],
            ),
            {},
            (
                "By sms, rule daily holds it back: 2 of 2 contacts in 24 h.\n"
                "By email, rule night holds it back: it is late.\n"
                "A later channel is taken only where a cap or a gap, not the clock, holds it back on the one before."
            ),
        ),
        (present(GOES), {}, "No rule of the policy applies to it."),
    ],
)
def test_what_waits_says_what_holds_it_and_what_comes_next(
    now: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    found = text(now=now, **more)
    assert said.replace("\n", " ") in found, found
    assert "It expires at 10:00 on Saturday 28 November. The policy in force is version 7." in found


@pytest.mark.parametrize("reason", ["retry", "repeat", "throttled", "busy", "pace", "clock", BUG])
def test_a_wait_that_no_rule_asked_for_says_why(reason: str) -> None:
    later = rfc3339(NOW + timedelta(minutes=5))
    said = text(decisions=[decision("waiting", reason, until=later)])
    assert f"At 10:00 it was put off until 10:05 (policy version 7), because {REASONS[reason]}." in said


def test_a_rule_that_is_named_like_a_cause_is_told_as_a_rule() -> None:
    later = rfc3339(NOW + timedelta(minutes=5))
    said = text(decisions=[decision("waiting", "busy", until=later, why=[ruling("busy")])])
    assert "it was put off until 10:05 by rule busy" in said


def test_a_place_that_the_message_itself_takes_is_told_as_such() -> None:
    own = {"message": "m1", "channel": "sms", "category": "news", "campaign": None, "at": rfc3339(NOW)}
    said = text(now=present(waits("daily"), rules=[ruling(held_by=[own])]))
    assert "The sms at 10:00 is this very message, category news." in said


def test_many_places_are_not_read_out_one_by_one() -> None:
    held = [
        {
            "message": f"m{n}",
            "channel": "sms",
            "category": "news",
            "campaign": None,
            "at": rfc3339(NOW + n * timedelta(minutes=1)),
        }
        for n in range(9)
    ]
    said = text(now=present(waits("daily"), rules=[ruling(held_by=held)]))
    assert "The places are taken by 4 others, the sms at 10:04, " in said
    assert said.count(" is message ") == 5
    assert "taken by 1 other, the sms at 10:01, " in text(now=present(waits("daily"), rules=[ruling(held_by=held[:6])]))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"opted_out": {"by": "person", "category": "news"}}, "category news at 10:00."),
        ({"opted_out": {"by": "person", "category": "*"}}, "all that can be unsubscribed from at 10:00."),
        ({"opted_out": {"by": "person", "topic": "rates", "channel": "sms"}}, "topic rates by sms at 10:00."),
        (
            {"opted_out": {"by": "address"}},
            "everything at 10:00, as whoever has the address that it went to.",
        ),
        ({}, "more of this at 10:00."),  # of a time when that was not kept
    ],
)
def test_what_was_said_no_to_is_told(more: dict[str, Any], said: str) -> None:
    act = {"act": "opted_out", "agent": "human", "at": rfc3339(NOW), "via": "page", "channel": "sms"}
    assert f"The person said no to {said}" in text(state="sent", acts=[act | more])


@pytest.mark.parametrize("state", ["waiting", "refused"])
def test_why_an_address_is_not_used_any_more_is_told_with_its_time(state: str) -> None:
    known = {"channel": "email", "reason": "receipt:5.1.1", "at": rfc3339(NOW - timedelta(days=1))}
    assert (
        "On record: the address by email is not used any more since 10:00 yesterday, because the provider reported it"
        " later: there is no such mailbox (receipt:5.1.1)."
    ) in text(state=state, decisions=[decision("refused", "suppressed")][: state == "refused"], suppressed=[known])


@pytest.mark.parametrize(("crashes", "died"), [(1, "1 has died"), (2, "2 have died")])
def test_who_has_died_of_it_is_counted(crashes: int, died: str) -> None:
    assert f"{died} of it since." in text(suspect=True, crashes=crashes)


def test_holders_as_the_first_tables_have_them_are_named() -> None:
    """Decisions of before migration 0002 are kept as they were written."""
    said = text(state="refused", decisions=[decision("refused", "capped", why=[ruling(held_by=["m0"])])])
    assert "The place is taken by message m0." in said


@pytest.mark.parametrize(
    ("permits", "enforced", "said"),
    [
        (True, True, "Rule daily permits it: "),
        (False, True, "Rule daily holds it back: "),
        (True, False, "Rule daily would permit it too: "),
        (False, False, "Rule daily would hold it back, but is in shadow and holds nothing: "),
    ],
)
def test_every_verdict_of_a_rule_has_its_words(permits: bool, enforced: bool, said: str) -> None:
    rule = ruling(permits=permits) | ({} if enforced else {"enforced": False})
    assert said in text(now=present(GOES, rules=[rule]))


def test_what_holds_it_back_is_told_first() -> None:
    rules = [ruling("a", permits=True), ruling("b", enforced=False), ruling("c")]
    said = text(now=present(waits("c"), rules=rules))
    assert said.index("Rule c") < said.index("Rule b") < said.index("Rule a")


# --------------------------------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize(
    ("zone_", "instant", "told"),
    [
        (TOKYO, "2026-11-25T23:59:59+09:00", "23:59"),
        (TOKYO, "2026-11-26T00:00+09:00", "00:00 tomorrow"),
        (TOKYO, "2026-11-24T23:59+09:00", "23:59 yesterday"),
        (TOKYO, "2026-11-27T08:00+09:00", "08:00 on Friday 27 November"),
        (TOKYO, "2027-01-01T08:00+09:00", "08:00 on Friday 1 January 2027"),
        ("Pacific/Honolulu", "2026-11-24T15:00-10:00", "15:00"),
        ("Asia/Kathmandu", "2026-11-25T06:45+05:45", "06:45"),
        ("America/New_York", "2027-11-07T01:30-04:00", "01:30 (before the clocks go back) on Sunday 7 November 2027"),
        ("America/New_York", "2027-11-07T01:30-05:00", "01:30 (after the clocks go back) on Sunday 7 November 2027"),
        ("America/New_York", "2027-03-14T03:30-04:00", "03:30 on Sunday 14 March 2027"),
    ],
)
def test_an_instant_is_told_by_the_persons_clock(zone_: str, instant: str, told: str) -> None:
    expires = rfc3339(datetime.fromisoformat(instant))
    assert f"It expires at {told}. " in text(zone=zone_, expires_at=expires)


instants = st.integers(0, 60_000_000).map(lambda minutes: datetime(1971, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes))


@given(instants, instants, st.sampled_from(sorted(zone_names())))
@example(datetime(2027, 11, 7, 5, 30, tzinfo=UTC), NOW, "America/New_York")
def test_rules_and_the_text_around_them_tell_the_same_instant_alike(at: datetime, now: datetime, name: str) -> None:
    """Rules write an instant as ``ratelimit.clock`` does; only which of two readings it is they cannot say."""
    rule = ruling(why=f"free from {clock(at, zone(name))}")
    said = text(zone=name, zones=[name], asked_at=rfc3339(now), expires_at=rfc3339(at), now=present(GOES, rules=[rule]))
    found = re.search(r"holds it back: free from (.*?)\. .*It expires at (.*?)\. The policy", said)
    assert found
    assert found[1] == re.sub(r" \((before|after) the clocks go back\)", "", found[2])


def test_an_instant_by_another_clock_keeps_that_clock() -> None:
    rule = ruling(why=f"free from {clock(NOW, zone('America/New_York'))}")
    assert "free from 20:00 on Tuesday 24 November (America/New_York)." in text(now=present(GOES, rules=[rule]))


def test_the_dates_that_rules_name_are_told_as_people_say_them() -> None:
    """Whose weekdays they are: https://www.timeanddate.com/calendar/?year=2026"""
    rule = ruling(why="2026-11-23 is a public holiday in JP; 1 of 1 contact in the month of 2027-01-01 (Asia/Tokyo)")
    said = text(now=present(GOES, rules=[rule]))
    assert "Monday 23 November is a public holiday" in said
    assert "the month of Friday 1 January 2027 (Asia/Tokyo)." in said


@pytest.mark.parametrize("source", ZoneSource)
def test_every_source_of_a_zone_is_told(source: ZoneSource) -> None:
    said = text(zone_source=source)
    assert "which shows 10:00 on Wednesday 25 November 2026: it is taken to be that of Asia/Tokyo, " in said
    others = [text(zone_source=other) for other in ZoneSource if other is not source]
    assert said not in others


def test_one_of_several_zones_is_told_as_such() -> None:
    said = text(zones=["America/New_York", "Pacific/Honolulu", "Pacific/Guam"], zone="America/New_York")
    assert "that of America/New_York, the likeliest of 3 zones that the person's phone number may be from." in said
    assert "quiet hours and holidays in one of them hold for the person." in said


# ------------------------------------------------------------------------------------------------------------ all of it

rules = st.builds(
    lambda name, permits, enforced, next_, held: (
        ruling(name, "2 of 2 contacts in 24 h", permits=permits, next=next_, held_by=held)
        | ({} if enforced else {"enforced": False})
    ),
    st.sampled_from(["daily", "night", "busy"]),
    st.booleans(),
    st.booleans(),
    st.none() | instants.map(rfc3339),
    st.lists(
        st.fixed_dictionaries(
            {
                "message": st.sampled_from(["m0", "m1", "m2"]),
                "channel": st.sampled_from(list(Channel)),
                "category": st.just("news"),
                "campaign": st.none() | st.just("spring"),
                "at": instants.map(rfc3339),
            }
        ),
        max_size=6,
    ),
)
causes = st.sampled_from([*REASONS, *ERRORS, *(f"{kind}:1" for kind in ERRORS), "daily", "odd"])
decisions = st.builds(
    decision,
    st.sampled_from(list(MessageState)),
    causes,
    at=instants.map(rfc3339),
    why=st.lists(rules, max_size=2),
).map(
    lambda one: (
        one
        | (
            {"until": one["at"], "reason": one["reason"] if one["reason"] in REASONS else "daily"}
            if one["state"] == MessageState.WAITING
            else {"reason": "shadow"}
            if one["state"] == MessageState.SENDING
            else {}
        )
    )
)
attempts = st.builds(
    attempt,
    st.sampled_from(list(AttemptState)),
    st.none() | causes,
    channel=st.sampled_from(list(Channel)),
    begun_at=instants.map(rfc3339),
    reference=st.none() | st.just("V-42"),
)
presents = st.builds(
    present,
    st.just(GOES)
    | st.builds(
        lambda reason, will: waits(reason, will_expire=will),
        st.sampled_from(["retry", "repeat", "throttled", "busy", "clock", BUG]),
        st.booleans(),
    )
    | st.builds(
        lambda state, reason: {"state": state, "reason": reason},
        st.sampled_from(["expired", "refused", "failed", "unknown", "parked"]),
        causes,
    ),
    behind=st.none() | st.just("m0"),
    at=instants.map(rfc3339),
    rules=st.lists(rules, max_size=3),
    instead=st.lists(
        st.fixed_dictionaries({"channel": st.just("email"), "rules": st.lists(rules, max_size=2)}), max_size=2
    ),
)
noes = st.fixed_dictionaries(
    {"by": st.sampled_from(["person", "address"])},
    optional={"channel": st.just("sms"), "category": st.just("news"), "topic": st.just("rates")},
)


@given(
    st.sampled_from(list(MessageState)),
    st.lists(decisions, max_size=4),
    st.lists(attempts, max_size=2),
    presents,
    st.lists(noes, max_size=2),
    st.sampled_from(list(ZoneSource)),
    st.lists(st.sampled_from(sorted(zone_names())), min_size=1, max_size=3),
    instants,
)
def test_whatever_is_recorded_is_told_in_whole_readable_sentences(
    state: MessageState,
    decided: list[dict[str, Any]],
    tried: list[dict[str, Any]],
    now: dict[str, Any],
    opted_out: list[dict[str, str]],
    source: ZoneSource,
    zones: list[str],
    asked: datetime,
) -> None:
    if now["would"]["state"] == "waiting" and any(rule["rule"] == now["would"]["reason"] for rule in now["rules"]):
        now = now | {"next": rfc3339(asked)}
    told = of_message(
        view(
            state,
            decisions=decided,
            attempts=tried,
            now=now if state is MessageState.WAITING else None,
            opted_out=opted_out,
            zone_source=source,
            zones=zones,
            zone=zones[0],
            asked_at=rfc3339(asked),
        )
    )
    check(told)
    assert len(told) >= 3


# -------------------------------------------------------------------------------------------------------- eligibility


def eligibility(**more: Any) -> str:
    answer = {
        "user": "hana",
        "category": "news",
        "channel": "sms",
        "at": rfc3339(NOW),
        "asked_at": rfc3339(NOW),
        "allowed": True,
        "next": rfc3339(NOW),
        "refusal": None,
        "opted_out": [],
        "has_address": True,
        "rules": [],
        "policy": 7,
        "zone": TOKYO,
        "zone_source": "profile",
        "zones": [TOKYO],
    } | more
    told = of_eligibility(answer)
    check(told)
    return " ".join(told)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "Yes: news by sms may be sent to hana at 10:00."),
        (
            {"at": rfc3339(NOW - timedelta(days=1))},
            "Yes: news by sms may be sent to hana at 10:00 yesterday.",
        ),
        (
            {"allowed": False, "next": rfc3339(NOW + timedelta(days=2))},
            (
                "No: news by sms may not be sent to hana at 10:00."
                " The first moment that all rules permit is 10:00 on Friday 27 November."
            ),
        ),
        ({"allowed": False, "next": None}, "No: news by sms may not be sent to hana at 10:00, nor later."),
        (
            {"allowed": False, "next": None, "refusal": "suppressed"},
            "No: news by sms must not be sent to hana, because the person's address must not be used any more.",
        ),
        ({"has_address": False}, "No address for sms is known of hana: the request must bring one."),
        ({}, "The rules are those of policy version 7."),
    ],
)
def test_eligibility_is_told(more: dict[str, Any], said: str) -> None:
    assert said in eligibility(**more)


def test_a_refusal_is_not_told_twice() -> None:
    no = {"name": "opted_out", "permits": False, "next": None, "why": REASONS["opted_out"]}
    night = {"name": "night", "permits": False, "next": rfc3339(NOW), "why": "it is late"}
    said = eligibility(allowed=False, next=None, refusal="opted_out", rules=[no, night])
    assert said.count("has opted out") == 1
    assert "Rule night holds it back: it is late." in said


# ---------------------------------------------------------------------------------------------------------------- JSON


@given(instants, st.integers(0, 999_999))
def test_what_is_not_permitted_yet_is_never_told_a_moment_too_soon(at: datetime, microsecond: int) -> None:
    """Instants have milliseconds in JSON, and microseconds inside."""
    exact = at.replace(microsecond=microsecond)
    (told,) = why_json([Ruling("daily", permits=False, next=exact, why="full")])
    assert timedelta() <= datetime.fromisoformat(told["next"]) - exact < timedelta(milliseconds=1)
    (same,) = why_json([Ruling("daily", permits=True, next=exact, why="free")])
    assert same["next"] == rfc3339(exact)


def test_a_rule_that_never_permits_has_no_next() -> None:
    assert why_json([Ruling("night", permits=False, next=None, why="never")]) == [
        {"rule": "night", "permits": False, "next": None, "why": "never"}
    ]
