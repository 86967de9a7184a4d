"""Where may the person be: which clocks are theirs, and how is that known?"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from phonenumbers import region_code_for_number
from phonenumbers.timezone import UNKNOWN_TIMEZONE, time_zones_for_number

from gateway.message import number_of
from providers import Channel
from ratelimit import zone, zone_names

if TYPE_CHECKING:
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
    """Of the number, ISO 3166-1 alpha-2."""


def whereabouts(asked: str | None, profile: Profile, address: Address | None, policy: Policy) -> Whereabouts:
    """Where a person may be who is to be reached at an address.

    Args:
        asked: the zone that the request names.
        profile: what is known of the person.
        address: None where it is not known, or does not matter.
        policy: knows the defaults.
    """
    called = address.value if address and address.channel in _CALLED else None
    number = called or profile.phone
    country = _country_of_number(number) if number else None
    home, source = _home(profile, policy)
    if asked:
        return Whereabouts((zone(asked),), home[0], ZoneSource.REQUEST, country)
    if called and source is not ZoneSource.PROFILE:
        if zones := _zones_of_number(called):
            return Whereabouts(_likeliest_first(zones, country, policy), home[0], ZoneSource.PHONE, country)
        if country and country in policy.countries:
            return Whereabouts((policy.countries[country],), home[0], ZoneSource.COUNTRY, country)
    return Whereabouts(home, home[0], source, country)


_CALLED = (Channel.SMS, Channel.ROBOCALL)


def _home(profile: Profile, policy: Policy) -> tuple[tuple[ZoneInfo, ...], ZoneSource]:
    """The zones of a person, whatever they are sent and wherever to."""
    if profile.timezone:
        return (zone(profile.timezone),), ZoneSource.PROFILE
    if profile.phone and (zones := _zones_of_number(profile.phone)):
        return _likeliest_first(zones, _country_of_number(profile.phone), policy), ZoneSource.PHONE
    if policy.countries:
        countries = (
            _country_of_number(profile.phone) if profile.phone else None,
            _country_of_locale(profile.locale) if profile.locale else None,
        )
        for country in countries:
            if country and country in policy.countries:
                return (policy.countries[country],), ZoneSource.COUNTRY
    return (policy.zone,), ZoneSource.POLICY


def _likeliest_first(zones: tuple[ZoneInfo, ...], country: str | None, policy: Policy) -> tuple[ZoneInfo, ...]:
    """``phonenumbers`` has them by the alphabet: a Spanish mobile phone would be on the Canaries."""
    for likely in (policy.countries.get(country or ""), policy.zone):
        if likely in zones:
            return tuple(sorted(zones, key=lambda zone: zone is not likely))
    return zones


@functools.lru_cache(maxsize=65_536)
def _zones_of_number(phone: str) -> tuple[ZoneInfo, ...]:
    number = number_of(phone)
    names = time_zones_for_number(number) if number else ()
    return tuple(zone(name) for name in names if name != UNKNOWN_TIMEZONE and name in zone_names())


@functools.lru_cache(maxsize=65_536)
def _country_of_number(phone: str) -> str | None:
    number = number_of(phone)
    region = region_code_for_number(number) if number else None
    return region if region and region.isalpha() else None  # 001 is of no country


def _country_of_locale(locale: str) -> str | None:
    """The region of a BCP 47 tag: ``fr-CA``, ``zh-Hant-TW``."""
    parts = locale.split("-")[1:]
    return next((part.upper() for part in parts if len(part) == _ALPHA_2 and part.isalpha()), None)


_ALPHA_2 = 2
