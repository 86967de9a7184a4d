"""Where may the person be: which clocks are theirs, and how is that known?"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from phonenumbers import region_code_for_number
from phonenumbers.timezone import UNKNOWN_TIMEZONE, time_zones_for_number

from gateway.fields import number_of
from providers import Channel
from ratelimit import zone, zone_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from zoneinfo import ZoneInfo

    from gateway.config import Policy
    from gateway.message import Address, Profile


class ZoneSource(StrEnum):
    """What told the person's zone. The first of these that can tell does."""

    REQUEST = "request"
    PROFILE = "profile"
    PHONE = "phone"
    """All zones that the number may lie in."""
    COUNTRY = "country"
    """The policy's default for the country of the number, or else of the profile's locale."""
    POLICY = "policy"
    """The policy's last resort."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a person may be."""

    zones: tuple[ZoneInfo, ...]
    """At least one. The likeliest first: of those a number may lie in, the policy's default for its country, or else
    the policy's own; it is not known which it is where neither is among them."""
    calendar: ZoneInfo
    """Whose days count for calendar caps: never a request's."""
    source: ZoneSource
    """Of ``zones``."""
    country: str | None
    """Of the number, or of the locale where the policy goes by it; ISO 3166-1 alpha-2. None: it may be any."""


def whereabouts(request: Mapping[str, Any], profile: Profile, address: Address | None, policy: Policy) -> Whereabouts:
    """Where a person may be who is to be reached at an address.

    Args:
        request: as it was sent: it may name a zone, bring a phone number, or say a locale.
        profile: what is known of the person.
        address: None where it is not known, or does not matter.
        policy: knows the defaults.
    """
    called = address.value if address and address.channel in _CALLED else (request.get("to") or {}).get("phone")
    locale = request.get("locale")
    home = found = _of(profile, (profile.phone,), (profile.locale,), policy)
    if locale or called not in (None, profile.phone):
        found = _of(profile, (called, profile.phone), (profile.locale, locale), policy)
    if asked := request.get("timezone"):
        return Whereabouts((zone(asked),), home.calendar, ZoneSource.REQUEST, found.country)
    return found if found is home else replace(found, calendar=home.calendar)


_CALLED = (Channel.SMS, Channel.ROBOCALL)


def _of(profile: Profile, phones: Sequence[str | None], locales: Sequence[str | None], policy: Policy) -> Whereabouts:
    """By what is known of a person, the best first of each kind."""
    numbers = [phone for phone in phones if phone]
    countries = [country for number in numbers if (country := _country_of_number(number))]
    # The policy says for which countries a locale is believed: many who live elsewhere have en-US.
    believed = [c for locale in locales if locale and (c := _country_of_locale(locale)) and c in policy.countries]
    country = next(iter([*countries, *believed]), None)
    zones: tuple[ZoneInfo, ...]
    if profile.timezone:
        zones, source = (zone(profile.timezone),), ZoneSource.PROFILE
    elif found := next((number for number in numbers if _zones_of_number(number)), None):
        zones, source = _likeliest_first(_zones_of_number(found), country, policy), ZoneSource.PHONE
    elif likely := next((c for c in [*countries, *believed] if c in policy.countries), None):
        zones, source = (policy.countries[likely],), ZoneSource.COUNTRY
    else:
        zones, source = (policy.zone,), ZoneSource.POLICY
    return Whereabouts(zones, zones[0], source, country)


def _likeliest_first(zones: tuple[ZoneInfo, ...], country: str | None, policy: Policy) -> tuple[ZoneInfo, ...]:
    """``phonenumbers`` has them by the alphabet: a Spanish mobile phone would be on the Canaries."""
    for likely in (policy.countries.get(country or ""), policy.zone):
        if likely in zones:
            return tuple(sorted(zones, key=lambda zone: zone is not likely))
    return zones


@functools.lru_cache(maxsize=8192)
def _zones_of_number(phone: str) -> tuple[ZoneInfo, ...]:
    number = number_of(phone)
    names = time_zones_for_number(number) if number else ()
    return tuple(zone(name) for name in names if name != UNKNOWN_TIMEZONE and name in zone_names())


@functools.lru_cache(maxsize=8192)
def _country_of_number(phone: str) -> str | None:
    number = number_of(phone)
    region = region_code_for_number(number) if number else None
    return region if region and region.isalpha() else None  # 001 is of no country


def _country_of_locale(locale: str) -> str | None:
    """The region of a BCP 47 tag: ``fr-CA``, ``zh-Hant-TW``."""
    parts = locale.split("-")[1:]
    return next((part.upper() for part in parts if len(part) == _ALPHA_2 and part.isalpha()), None)


_ALPHA_2 = 2
