"""Is a text counted in as many parts as networks send it in?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import providers
from providers import Email, Push, Robocall, Sms
from providers._segments import BASIC, EXTENSION, segments

TABLE = (
    "@£$¥èéùìòÇ\nØø\rÅå"
    "Δ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./"
    "0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNO"
    "PQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmno"
    "pqrstuvwxyzäöñüà"
)
"""3GPP TS 23.038, 6.2.1: the default alphabet in its order, the escape in place 0x1B."""
EXTENDED = {
    0x0A: "\f",
    0x14: "^",
    0x28: "{",
    0x29: "}",
    0x2F: "\\",
    0x3C: "[",
    0x3D: "~",
    0x3E: "]",
    0x40: "|",
    0x65: "€",
}
"""3GPP TS 23.038, 6.2.1.1."""


def test_the_alphabets_are_those_of_the_standard() -> None:
    assert len(TABLE) == 128
    assert set(TABLE) - {"\x1b"} == BASIC
    assert set(EXTENDED.values()) == EXTENSION


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("a" * 1530, 10),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("€" * 76 + "aa", 1),  # 154 septets, alone
        ("a" * 152 + "€" + "a" * 151, 2),  # the escape does not fit, and begins the second part with 153
        ("a" * 152 + "€" + "a" * 152, 3),  # 306 septets, but no part is left at its last one
        ("я" * 70, 1),
        ("я" * 71, 2),
        ("я" * 134, 2),
        ("я" * 135, 3),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("😀" * 66, 2),  # 33 in a part of 67: half of one is never parted from the other
        ("😀" * 67, 3),
        ("a" * 160 + "\u2019", 3),  # one such quotation mark, and all is in 16 bits
        ("a" * 69 + "\u2019", 1),
        ("ç" * 71, 2),  # only the capital is in the alphabet
        ("Ç" * 160, 1),
        ("Δ" * 160, 1),
        ("Α" * 71, 2),  # noqa: RUF001 - Greek, and not in the alphabet though it looks like a Latin one
        ("`" * 71, 2),
        ("\t" * 71, 2),
        ("[" * 80, 1),
        ("line\r\n" * 26, 1),
    ],
)
def test_a_text_is_sent_in_so_many_parts(text: str, parts: int) -> None:
    assert segments(text) == parts


@given(st.text(max_size=400), st.text(max_size=50))
def test_more_text_is_never_fewer_parts(text: str, more: str) -> None:
    assert 1 <= segments(text) <= segments(text + more)


@given(st.text(alphabet=sorted(BASIC | EXTENSION), max_size=700))
def test_parts_hold_what_the_standard_says_they_hold(text: str) -> None:
    septets = sum(2 if character in EXTENSION else 1 for character in text)
    least = 1 if septets <= 160 else -(-septets // 153)
    assert least <= segments(text) <= (1 if septets <= 160 else -(-septets // 152))


TWILIO = {"account_sid": "AC1", "auth_token": "t", "sender": "+15005550006"}
HTTP = {"channels": ["sms", "push"], "url": "https://example.com", "body": {"a": "{text}"}}
LONG = Sms("a" * 161)


@pytest.mark.parametrize(
    ("kind", "settings", "units"),
    [
        ("twilio_sms", TWILIO, 2),
        ("http", HTTP, 1),
        ("http", HTTP | {"pace_in": "segments"}, 2),
        ("inbox", {}, 1),
        ("twilio_voice", TWILIO, 1),
    ],
)
def test_each_vendor_counts_in_its_own_way(kind: str, settings: dict[str, object], units: int) -> None:
    found = providers.settings_of(kind).model_validate({"kind": kind, "pace": "10/s"} | settings)
    assert found.units(LONG) == units
    others = (Email("s", "a" * 500), Push("t", "b" * 500), Robocall("c" * 500))
    assert [found.units(content) for content in others] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "per_second"), [("10/s", 10), ("600/m", 10), ("36000/h", 10), ("1/h", 1 / 3600), ("9999999/s", 9_999_999)]
)
def test_a_pace_is_a_rate(text: str, per_second: float) -> None:
    pace = providers.settings_of("inbox").model_validate({"pace": text}).pace
    assert pace is not None
    assert pace.per_second == pytest.approx(per_second)
