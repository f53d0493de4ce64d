"""How an error tells what was allowed and which of it was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches

from ..runtime.errors import UserError


def nearest(value: str, allowed: Iterable[str]) -> str:
    """Suggest the allowed value that is spelled most like `value`.

    Args:
        value: What the user wrote.
        allowed: What may be written.

    Returns:
        " (did you mean 'x'?)", or nothing where no allowed value comes close.
    """
    matches = get_close_matches(value.lower(), list(allowed), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def check_choice(key: str, value: object, allowed: Iterable[str]) -> None:
    """Refuse a value that is not among the allowed ones.

    Args:
        key: Where the value stands, like `cells[1].kind`.
        value: What the user wrote, of any type.
        allowed: What may be written there.

    Raises:
        UserError: If `value` is not one of `allowed`.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        suggestion = nearest(value, allowed) if isinstance(value, str) else ""
        raise UserError(f"{key} must be one of {', '.join(allowed)}, not {value!r}{suggestion}")
