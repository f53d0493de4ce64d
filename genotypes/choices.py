"""Checks of choices, whose errors list the allowed values and suggest the nearest."""

from collections.abc import Iterable
from difflib import get_close_matches

from ..runtime.errors import UserError


def nearest(value: str, allowed: Iterable[str]) -> str:
    """Suggest the allowed value whose spelling is nearest, as " (did you mean 'x'?)", or "" if none is near."""
    matches = get_close_matches(value.lower(), list(allowed), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def check_choice(key: str, value: object, allowed: Iterable[str]) -> None:
    """Raise a `UserError` if the value of a key, like `cells[1].kind`, is not allowed."""
    allowed = tuple(allowed)
    if value not in allowed:
        suggestion = nearest(value, allowed) if isinstance(value, str) else ""
        raise UserError(f"{key} must be one of {', '.join(allowed)}, not {value!r}{suggestion}")
