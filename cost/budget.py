"""What a network may cost: milliseconds, floating-point operations or parameters, as a user writes them."""

import math
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["ms", "FLOPs", "params"]

_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_AMOUNT = re.compile(
    r"\s*(?P<number>(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)\s*"
    r"((?P<seconds>m?s)|(?P<prefix>[kmgt]?)\s*(?P<what>flops?|params?|parameters?))\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Budget:
    """A bound on the cost of a network.

    Args:
        kind: what is counted.
        amount: in milliseconds, operations or parameters, above 0.
    """

    kind: Kind
    amount: float

    def __str__(self) -> str:
        return format_cost(self.kind, self.amount)


def parse_budget(text: str) -> Budget:
    """Read a budget.

    Args:
        text: a number and its unit: ms or s, FLOPs, or params; the latter two also with k, M, G or T before. Case and
            spaces do not matter.

    Returns:
        The budget.

    Raises:
        ValueError: the text is none; says what would be.

    >>> parse_budget("5GFLOPs")
    Budget(kind='FLOPs', amount=5000000000.0)
    """
    match = _AMOUNT.fullmatch(text)
    amount = float(match["number"]) if match else 0.0
    if match is None or not 0 < amount < math.inf:
        raise ValueError("must be a number above 0 with its unit, like 10ms, 5GFLOPs or 50kparams")
    if match["seconds"]:
        return Budget("ms", amount if match["seconds"].lower() == "ms" else 1e3 * amount)
    return Budget(
        "FLOPs" if match["what"].lower().startswith("f") else "params", amount * _PREFIXES[match["prefix"].lower()]
    )


def format_cost(kind: Kind, amount: float) -> str:
    """Write a cost with four digits and its unit.

    Args:
        kind: what is counted.
        amount: in milliseconds, operations or parameters, at least 0.

    Returns:
        Something like "7.31 ms", "5.2 GFLOPs" or "912 params".
    """
    if kind == "ms":
        return f"{_digits(amount)} ms"
    prefix, scale = max(
        ((prefix, scale) for prefix, scale in _PREFIXES.items() if scale <= max(1.0, amount)), key=lambda pair: pair[1]
    )
    return f"{_digits(amount / scale)} {prefix.upper() if prefix != 'k' else prefix}{kind}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
