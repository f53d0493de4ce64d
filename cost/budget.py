"""A bound on what a network may cost: milliseconds, floating-point operations or parameters."""

import math
import re
from dataclasses import dataclass
from typing import Literal

CostKind = Literal["ms", "FLOPs", "params"]

_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BUDGET = re.compile(
    r"\s*(?P<number>(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)\s*"
    r"((?P<seconds>m?s)|(?P<prefix>[kmgt]?)\s*(?P<count>flops?|params?|parameters?))\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Budget:
    """A bound on the cost of a network: the text of the user, its kind, and the amount in the unit of the kind.

    Example:
        >>> Budget("5kparams", "params", 5000.0) == parse_budget("5kparams")
        True
    """

    text: str
    kind: CostKind
    amount: float


def parse_budget(text: str) -> Budget:
    """Read a budget.

    Args:
        text: A number and its unit: ms or s, FLOPs, or params. FLOPs and params may have the prefix k, M, G or T.
            Case and spaces do not matter.

    Raises:
        ValueError: If the text is not a budget.

    Example:
        >>> parse_budget("5 GFLOPs")
        Budget(text='5 GFLOPs', kind='FLOPs', amount=5000000000.0)
    """
    match = _BUDGET.fullmatch(text)
    amount = float(match["number"]) if match else 0.0
    if match is None or not 0 < amount < math.inf:
        raise ValueError("must be a number above 0 with its unit, like 10ms, 5GFLOPs or 50kparams")
    if match["seconds"]:
        return Budget(text, "ms", amount if match["seconds"].lower() == "ms" else 1e3 * amount)
    kind: CostKind = "FLOPs" if match["count"].lower().startswith("f") else "params"
    return Budget(text, kind, amount * _PREFIXES[match["prefix"].lower()])


def format_cost(kind: CostKind, amount: float) -> str:
    """Write a cost of at least 0 with four digits and its unit, like "7.31 ms", "5.2 GFLOPs" or "912 params"."""
    fitting = [item for item in _PREFIXES.items() if item[1] <= amount and kind != "ms"]
    prefix, scale = fitting[-1] if fitting else ("", 1.0)
    digits = f"{amount / scale:.0f}" if amount / scale >= 1000 else f"{amount / scale:.4g}"
    return f"{digits} {prefix if prefix == 'k' else prefix.upper()}{kind}"
