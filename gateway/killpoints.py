"""Named places between two steps, where a test may have the process die.

In production nothing happens there and nothing can be made to happen: no setting, argument or variable is read. The
faults suite starts the gateway through a launcher of its own, which puts something deadly in the place of ``reached``.
"""

from __future__ import annotations

from typing import Literal, get_args

Point = Literal[
    "intake.before_commit",
    "intake.after_commit",
    "broker.before_ack",
    "broker.after_ack",
    "worker.leased",
    "claim.before_commit",
    "claim.after_commit",
    "provider.before_write",
    "provider.answered",
    "settle.before_commit",
    "settle.after_commit",
    "worker.delivered",
    "receipt.before_commit",
    "receipt.after_commit",
    "relay.before_publish",
    "relay.confirmed",
    "relay.forgotten",
]
POINTS: tuple[Point, ...] = get_args(Point)


def reached(point: Point) -> None:
    """Nothing."""
