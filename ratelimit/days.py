"""Is it a public holiday for the person, and when will it not be?"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from ratelimit import _timeline
from ratelimit._rules import ALL, HORIZON, Only, Ruling
from ratelimit._wording import clock
from ratelimit.clocks import DAY, RESOLUTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from holidays import HolidayBase

    from ratelimit._rules import Contact, Subject

_Place = tuple[str, str | None]
"""Country and subdivision."""

_WHOLE_DAY = ((timedelta(0), DAY),)
_ENGLISH = "en_US"
"""Whatever country the package knows in any language at all it knows in this one."""


@dataclass(frozen=True, slots=True)
class Holidays:
    """Public holidays are quiet from midnight to midnight, in every candidate zone.

    An instant is quiet if the wall clock of any candidate zone reads the date of a holiday at it. Days given instead of
    holidays that fall on a day of rest are holidays too. Which dates they are is the ``holidays`` package's answer.
    """

    name: str
    country: str
    """ISO 3166-1 alpha-2, as the ``holidays`` package knows it."""
    subdivision: str | None = None
    """ISO 3166-2, without the country."""
    only: Only = ALL
    enforce: float = 100

    def __post_init__(self) -> None:
        if not (len(self.country) == len("FR") and self.country.isascii() and self.country.isupper()):
            raise ValueError(f"{self.country!r} is not a country of ISO 3166-1 in two capital letters, such as FR")
        _calendar(self.country, self.subdivision)

    @property
    def looks_back(self) -> timedelta:
        """Only at clocks."""
        return timedelta(0)

    def first(
        self,
        at: datetime,
        span: timedelta,
        subject: Subject,
        history: Sequence[Contact],  # noqa: ARG002 - the rule's face
    ) -> datetime | None:
        """The first instant from ``at`` on whose whole span is on no holiday in any candidate zone."""
        return _timeline.first_open(_on_holidays, self._place, subject.zones, at, span, subject)

    def shuts(self, at: datetime, subject: Subject) -> datetime | None:
        """When the next holiday begins."""
        return _timeline.shuts(_on_holidays, self._place, subject.zones, at)

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """Which holiday it is, in which zone, and when it is over."""
        free = self.first(at, span, subject, history)
        country = self.country if self.subdivision is None else f"{self.country}-{self.subdivision}"
        if free == at:
            dates = sorted({f"{at.astimezone(zone):%Y-%m-%d}" for zone in subject.zones})
            why = f"no public holiday in {country} on {' or '.join(dates)}"
            return Ruling(self.name, permits=True, next=at, why=why)
        met, _ = next(_on_holidays(self._place, subject.zones, at, at + span + RESOLUTION))
        dates_there = {zone: met.astimezone(zone).date() for zone in subject.zones}
        zone, day = next(there for there in dates_there.items() if _name(self._place, there[1]))
        holiday = f"{day} is a public holiday in {country}: {_name(self._place, day)}"
        if met > at:
            why = f"an attempt of {span.total_seconds():g} s could run into it: {holiday}"
        else:
            why = holiday if zone is subject.zones[0] else f"in {zone.key} {holiday}"
        then = f"free from {clock(free, subject.zones[0])}" if free else f"never free within {HORIZON.days} days"
        return Ruling(self.name, permits=False, next=free, why=f"{why}; {then}")

    @property
    def _place(self) -> _Place:
        return self.country, self.subdivision


def _on_holidays(
    of: _Place, zones: Sequence[ZoneInfo], since: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """When the clock of any of the zones reads the date of a holiday."""
    return _timeline.spells(lambda day: _WHOLE_DAY if _name(of, day) else (), zones, since, until)


def _name(of: _Place, day: date) -> str | None:
    """The holiday on a date; None: there is none."""
    return _of_year(*of, day.year).get(day)


@functools.lru_cache(maxsize=4096)
def _of_year(country: str, subdivision: str | None, year: int) -> Mapping[date, str]:
    return dict(_calendar(country, subdivision, year).items())


def _calendar(country: str, subdivision: str | None, year: int | None = None) -> HolidayBase:
    """The holidays of a year, in English; without a year none.

    Raises:
        ValueError: there is no such country or subdivision.
    """
    from holidays import country_holidays  # noqa: PLC0415 - slow to import, and most policies have no holidays

    try:
        known = country_holidays(country)
    except NotImplementedError:
        raise ValueError(f"no public holidays are known for the country {country!r}") from None
    if known.country != country:
        raise ValueError(f"{country!r} is not its country's code in ISO 3166-1: write {known.country}")
    if subdivision is not None and subdivision not in known.subdivisions:
        some = f"one of {', '.join(known.subdivisions)}" if known.subdivisions else "none"
        raise ValueError(f"no public holidays are known for the subdivision {subdivision!r} of {country}: {some}")
    # Without a language the package would take the machine's.
    return country_holidays(country, subdiv=subdivision, years=year, language=_ENGLISH)
