"""All of RabbitMQ: requests, profiles and reports come in here, events and what was parked go out.

Nothing is acknowledged before it is committed, and nothing is published without a confirmation. What was neither
acknowledged nor confirmed may come, or go, twice.
"""

from __future__ import annotations

from gateway.broker.consumer import Consumer
from gateway.broker.publisher import BrokerUnavailable, Outgoing, Publisher
from gateway.broker.topology import Topology, TopologyError

__all__ = ["BrokerUnavailable", "Consumer", "Outgoing", "Publisher", "Topology", "TopologyError"]
