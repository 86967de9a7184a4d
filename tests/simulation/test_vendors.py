"""Do the simulated vendors do what the real adapters do, with vendors that speak their protocols?"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from providers import ProviderError, Unavailable
from providers.twilio_sms import Provider as Twilio
from tests.contract.cases import NOW, cases, twilio_settings
from tests.simulation.vendors import Fate, Mood, Provider, Vendor
from tests.vendors import twilio
from tests.vendors.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from providers import Dispatch

DISPATCH = cases()["twilio_sms"].dispatch
STEERED = {
    Fate.TAKEN: "+447700900123",
    Fate.THROTTLED: "+15005559429",
    Fate.UNREACHABLE: "+15005550001",
    Fate.MISCONFIGURED: "+15005559401",
    Fate.SILENT: "+15005559998",
    Fate.RESET: "+15005559999",
    Fate.BROKEN: "+15005559500",
    Fate.LOST_SILENT: "+15005559988",
    Fate.LOST_RESET: "+15005559989",
}
"""Numbers that have the vendor's stand-in do the same."""


@pytest.fixture
async def real() -> AsyncIterator[tuple[Any, Ledger]]:
    """Twilio's adapter, and what the account has taken."""
    ledger = Ledger()
    vendor = twilio.Twilio(ledger)
    provider = Twilio("text", twilio_settings("twilio_sms", await vendor.start(), timeout=0.5), lambda: NOW)
    await provider.open()
    yield provider, ledger
    await provider.close()
    await vendor.stop()


def simulated(fate: Fate, dedupes: timedelta | None = None) -> tuple[Provider, Vendor]:
    vendor = Vendor("text", Random(1), copy_context(), dedupes, Mood({fate: 1.0}, 0.01))
    return Provider(vendor, lambda: NOW, 0.1), vendor


async def said(provider: Any, dispatch: Dispatch) -> type[ProviderError] | None:
    """How it failed; None: it did not."""
    try:
        assert await provider.send(dispatch)
    except ProviderError as error:
        return type(error)
    return None


@pytest.mark.parametrize("fate", STEERED)
async def test_they_say_the_same_of_the_same(fate: Fate, real: tuple[Any, Ledger]) -> None:
    provider, ledger = real
    other, vendor = simulated(fate)
    dispatch = replace(DISPATCH, address=STEERED[fate])
    assert await said(other, dispatch) is await said(provider, dispatch)
    assert [e.address for e in vendor.ledger] == [entry["address"] for entry in ledger.entries]


async def test_after_the_deadline_neither_writes(real: tuple[Any, Ledger]) -> None:
    provider, ledger = real
    other, vendor = simulated(Fate.TAKEN)
    late = replace(DISPATCH, deadline=NOW)
    assert await said(provider, late) is await said(other, late) is Unavailable
    assert not ledger.entries
    assert not vendor.ledger


async def test_a_vendor_with_a_key_takes_a_message_once_unless_it_is_sent_again_on_purpose() -> None:
    provider, vendor = simulated(Fate.TAKEN, timedelta(hours=24))
    for attempt, generation in (("a", 1), ("b", 1), ("c", 2)):
        await provider.send(replace(DISPATCH, attempt=attempt, generation=generation))
    assert [entry.attempt for entry in vendor.ledger] == ["a", "c"]


async def test_a_vendor_that_is_asked_tells_of_what_it_has_alone() -> None:
    provider, vendor = simulated(Fate.TAKEN)
    assert not provider.can_look_up
    vendor.tells = True
    assert provider.can_look_up
    await provider.send(replace(DISPATCH, attempt="a"))
    found = {attempt: [await provider.look_up(attempt) for _ in range(20)] for attempt in ("a", "b")}
    assert {receipt.attempt for receipt in found["a"] if receipt} == {"a"}
    assert not any(found["b"])
    vendor.mood = Mood({Fate.SILENT: 1.0})
    with pytest.raises(Unavailable):
        await provider.look_up("a")
