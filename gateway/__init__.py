"""The gateway: what services ask is accepted, decided, delivered and recorded."""
