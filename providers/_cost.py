"""What a vendor takes for a unit, as its bill says."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

_AMOUNT = re.compile(r"[0-9]{1,6}(\.[0-9]{1,8})?")

_CURRENCY = re.compile(r"[A-Z]{3}")


def _amount(value: object) -> Decimal:
    written = value if isinstance(value, str) else str(value)  # the shortest that reads as the same number
    if isinstance(value, bool) or not _AMOUNT.fullmatch(written):
        raise ValueError('must be an amount of at most 8 decimals, such as "0.0075"')
    return Decimal(written)


def _currency(value: object) -> str:
    if not isinstance(value, str) or not _CURRENCY.fullmatch(value):
        raise ValueError("must be a currency's three capital letters (ISO 4217), such as USD")
    return value


class Cost(BaseModel):
    """So much of a currency for each unit, exactly."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    amount: Annotated[Decimal, PlainValidator(_amount)] = Field(
        description='add what a unit costs, such as amount: "0.0075"'
    )
    currency: Annotated[str, PlainValidator(_currency)] = Field(description="add its currency, such as USD")
