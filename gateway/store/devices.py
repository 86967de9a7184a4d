"""Push tokens that are dead: they go from the profile, and with the last of them the app is taken to be uninstalled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.abuse import fingerprint
from gateway.acts import Deed, Owed
from gateway.store import rows
from gateway.store.acts import note
from gateway.store.engine import Fetch, Operation, Run
from providers import Act, Agent, Channel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.acts import Noted
    from gateway.decide import Judge
    from gateway.message import Attempt, Message, Profile


def dropped(
    dead: Iterable[tuple[Message, Attempt]], profiles: Mapping[str, str], judge: Judge, now: int
) -> Operation[list[Noted]]:
    """Forget the tokens of attempts that found them dead, in a transaction that holds the persons and suppresses them.

    Args:
        dead: attempts, each with its message. Those of other channels are passed over.
        profiles: of their persons, as they are stored.
        judge: the one in force.
        now: in microseconds.
    """
    found: dict[str, Profile] = {}
    gone: list[tuple[Deed, Owed]] = []
    for message, attempt in dead:
        if attempt.channel is not Channel.PUSH:
            continue
        before = found.get(message.person) or rows.profile(profiles[message.person])
        left = tuple(device for device in before.push if fingerprint(device.token) != attempt.address)
        asked = message.body.get("to") or {}
        named = [fingerprint(device["token"]) for device in asked.get("push") or ()]
        last = not left and before.app_installed is not False and (yield from _all_dead(named, attempt.address))
        found[message.person] = before.model_copy(update={"push": left} | ({"app_installed": False} if last else {}))
        if last:
            owed = Owed(message.person, message.id, attempt.id, attempt.channel, message.category)
            gone.append((Deed(Act.UNINSTALLED, Agent.HUMAN, "provider", f"uninstalled:{attempt.id}"), owed))
    yield Run(
        "update profiles set profile = $2, updated_at = $3 where person = $1",
        [
            (person, profile.model_dump_json(exclude={"opted_out"}, exclude_defaults=True), now)
            for person, profile in sorted(found.items())
            if profile != rows.profile(profiles[person])
        ],
    )
    return (yield from note(gone, judge, now))


def _all_dead(tokens: Sequence[str], this: str) -> Operation[bool]:
    """Whether none of the devices that a request names, by their fingerprints, can be notified any more."""
    others = [token for token in tokens if token != this]
    if not others:
        return True
    known = yield Fetch(
        "select count(distinct address) from suppressions where address = any($1) and channel = 'push'", (others,)
    )
    return bool(known[0][0] == len(set(others)))
