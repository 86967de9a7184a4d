"""How many parts a text message is sent in, which is what vendors count and bill.

3GPP TS 23.038, 6.2.1: a text whose every character is in the GSM 7-bit default alphabet or its extension table is
sent in septets, any other in UCS-2. 3GPP TS 23.040, 9.2.3.24.1: parts of a longer text give 6 of their 140 octets to
the header that joins them.
"""

from __future__ import annotations

BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""The default alphabet: one septet each. The 128th is the escape to the extension table, which is no character."""

EXTENSION = frozenset("\f^{}\\[~]|€")
"""The extension table: the escape and one septet more."""

_SEPTETS = BASIC | EXTENSION

_GSM_ALONE, _GSM_PART = 160, 153
_UCS2_ALONE, _UCS2_PART = 70, 67
"""Characters of 7 and of 16 bits in 140 octets, and in 134."""

_LAST = "\uffff"
"""The last character that UTF-16 writes in one unit of 16 bits."""


def segments(text: str) -> int:
    """In how many parts a text is sent; at least 1."""
    if _SEPTETS.issuperset(text):
        if EXTENSION.isdisjoint(text):
            return _even(len(text), _GSM_ALONE, _GSM_PART)
        return _parts([2 if character in EXTENSION else 1 for character in text], _GSM_ALONE, _GSM_PART)
    if max(text) <= _LAST:
        return _even(len(text), _UCS2_ALONE, _UCS2_PART)
    return _parts([2 if character > _LAST else 1 for character in text], _UCS2_ALONE, _UCS2_PART)


def _even(length: int, alone: int, part: int) -> int:
    """Where every character takes one place, as in most texts."""
    return 1 if length <= alone else -(-length // part)


def _parts(widths: list[int], alone: int, part: int) -> int:
    """No escape is parted from its character, and no surrogate from its other half."""
    if sum(widths) <= alone:
        return 1
    count, used = 1, 0
    for width in widths:
        if used + width > part:
            count, used = count + 1, 0
        used += width
    return count
