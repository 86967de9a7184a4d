"""Lengths of time, as they are written in YAML."""

from __future__ import annotations

import re
from datetime import timedelta

_FORM = re.compile(
    r"(?:(?P<weeks>[0-9]{1,6})w)?(?:(?P<days>[0-9]{1,6})d)?(?:(?P<hours>[0-9]{1,6})h)?"
    r"(?:(?P<minutes>[0-9]{1,6})m)?(?:(?P<seconds>[0-9]{1,6})s)?"
)


def duration(value: object) -> timedelta:
    """Such as ``24h`` or ``1h30m``.

    Raises:
        ValueError: it is none, nothing, or more than ten years.
    """
    parts = _FORM.fullmatch(value) if isinstance(value, str) else None
    if not value or parts is None:
        raise ValueError("must be a duration with its unit, such as 30s, 5m, 24h, 14d, 2w or 1h30m")
    length = timedelta(**{unit: int(number) for unit, number in parts.groupdict(default="0").items()})
    if not length:
        raise ValueError("must be longer than nothing")
    if length > timedelta(days=3660):
        raise ValueError("must be at most 3660d")
    return length
