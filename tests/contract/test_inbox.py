"""The inbox keeps what it is handed, as long as there is room."""

from __future__ import annotations

from dataclasses import replace

import providers
from providers import Channel
from providers.inbox import Kept, Provider
from tests.contract.cases import ATTEMPT, MESSAGE, NOW, cases


async def test_it_keeps_the_latest() -> None:
    provider = Provider("in", providers.settings_of("inbox").model_validate({"keep": 2}), lambda: NOW)  # type: ignore[arg-type]
    every = [case.dispatch for kind, case in cases().items() if kind != "http"]
    for dispatch in every:
        assert await provider.send(dispatch) == f"inbox-{ATTEMPT}"
    assert [kept.content for kept in provider.messages] == [dispatch.content for dispatch in every[-2:]]


async def test_it_keeps_what_a_console_needs() -> None:
    provider = Provider("in", providers.settings_of("inbox").model_validate({}), lambda: NOW)  # type: ignore[arg-type]
    for kind, channel in (("smtp", "email"), ("twilio_sms", "sms"), ("fcm", "push"), ("twilio_voice", "robocall")):
        dispatch = cases()[kind].dispatch
        await provider.send(replace(dispatch, address="someone"))
        assert provider.messages[-1] == Kept(ATTEMPT, MESSAGE, Channel(channel), "someone", dispatch.content, NOW)
