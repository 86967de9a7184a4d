"""Logs: one JSON object a line on standard output."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer


def to_stdout(level: int = logging.INFO) -> None:
    """Log from here on; what libraries warn of comes in the same form."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Libraries())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _Libraries(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "event": "library.log",
            "logger": record.name,
            "level": record.levelname.lower(),
            "what": record.getMessage(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        if record.exc_info and record.exc_info[1]:
            line["exception"] = repr(record.exc_info[1])
        return _dumps(line).decode()


def _dumps(event: object, **_: object) -> bytes:
    return orjson.dumps(event, default=str)
