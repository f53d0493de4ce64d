"""The ids of the operators of the search space: kind, kernel size and dilation."""

import re
from dataclasses import dataclass

from ..runtime.errors import UserError
from .choices import nearest


@dataclass(frozen=True)
class OperatorKind:
    """The kernels and dilations of a kind of operator.

    Args:
        words: Name of the kind in words, for pictures.
        kernels: Allowed kernel sizes in pixels; empty for a kind without kernel size.
        dilations: Allowed dilations in pixels; empty for a kind without dilation.
        square: Whether the kernel spans two axes of the image (3×3), or one axis of channels (3).

    Example:
        >>> OPERATOR_KINDS["residual"].kernels
        (3, 5, 7)
    """

    words: str
    kernels: tuple[int, ...] = (3, 5, 7)
    dilations: tuple[int, ...] = ()
    square: bool = True


OPERATOR_KINDS: dict[str, OperatorKind] = {
    "dense": OperatorKind("dense", dilations=(1, 2)),
    "residual": OperatorKind("residual", dilations=(1, 2)),
    "dilated": OperatorKind("dilated", dilations=(1, 2)),
    "separable": OperatorKind("separable"),
    "channel_attention": OperatorKind("channel attention", square=False),
    "spatial_attention": OperatorKind("spatial attention"),
    "non_local": OperatorKind("non-local"),
    "plain": OperatorKind("plain", kernels=(3, 5)),
    "inverted": OperatorKind("inverted residual", kernels=(3, 5)),
    "identity": OperatorKind("identity", kernels=()),
}


@dataclass(frozen=True)
class OperatorName:
    """The id of an operator in parts; `str()` joins them.

    Args:
        kind: Kind of the operator, a key of `OPERATOR_KINDS`.
        kernel: Kernel size in pixels; None for a kind without kernel size.
        dilation: Dilation in pixels; None for a kind without dilation.

    Example:
        >>> str(OperatorName("residual", 5, 2))
        'residual_k5_d2'
    """

    kind: str
    kernel: int | None = None
    dilation: int | None = None

    def __str__(self) -> str:
        kernel = "" if self.kernel is None else f"_k{self.kernel}"
        dilation = "" if self.dilation is None else f"_d{self.dilation}"
        return f"{self.kind}{kernel}{dilation}"

    @property
    def in_words(self) -> str:
        """The operator in words, like "dilated 3×3, dilation 2"."""
        kind = OPERATOR_KINDS[self.kind]
        kernel = "" if self.kernel is None else f" {self.kernel}"
        if kernel and kind.square:
            kernel += f"×{self.kernel}"
        dilation = "" if self.dilation in (None, 1) else f", dilation {self.dilation}"
        return f"{kind.words}{kernel}{dilation}"


def operators_of(kind: str) -> tuple[OperatorName, ...]:
    """List every combination of the kernels and dilations of a kind, the smaller ones first."""
    allowed = OPERATOR_KINDS[kind]
    return tuple(
        OperatorName(kind, kernel, dilation)
        for kernel in allowed.kernels or (None,)
        for dilation in allowed.dilations or (None,)
    )


# The ids of all operators of timfuse, in a fixed order.
ALL_OPERATORS = tuple(str(name) for kind in OPERATOR_KINDS for name in operators_of(kind))
_BUILT_IN = frozenset(OPERATOR_KINDS)
_KIND = re.compile("[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SUFFIX = re.compile("_[kd][0-9]+")  # ends the id of an operator


def add_operator_kind(name: str, kind: OperatorKind) -> None:
    """Add a kind of operator of the user to `OPERATOR_KINDS`, in place of an earlier one with the same name.

    Args:
        name: First part of the ids of its operators, in lower-case letters, digits and single underscores.
        kind: Kernels, odd, and dilations, at least 1, each once.

    Raises:
        UserError: If the name is not allowed, belongs to timfuse or ends like an id, or the kind has other values.
    """
    if not isinstance(name, str) or not _KIND.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be the name of an operator; write lower-case letters, digits and single underscores"
        )
    if name in _BUILT_IN:
        raise UserError(f"the operator {name} belongs to timfuse; choose another name")
    if ending := re.search(f"{_SUFFIX.pattern}$", name):
        raise UserError(f"the name {name} ends in {ending[0]}, like the id of an operator; give kernels or dilations")
    for key, values, multiple in (("kernels", kind.kernels, "odd "), ("dilations", kind.dilations, "")):
        whole = isinstance(values, tuple) and all(type(value) is int and value > 0 for value in values)
        if not whole or (multiple and not all(value % 2 for value in values)) or len(set(values)) < len(values):
            raise UserError(
                f"{key} of {name} must be different {multiple}whole numbers above 0, like (1, 3), not {values!r}"
            )
    if not isinstance(kind.words, str) or not kind.words.strip() or not kind.words.isprintable():
        raise UserError(f"words of {name} must be one line of text, not {kind.words!r}")
    OPERATOR_KINDS[name] = kind


def parse_operator(identifier: object, key: str = "operator") -> OperatorName:
    """Parse the id of an operator.

    Args:
        identifier: An id like "residual_k5_d2", "channel_attention_k3" or "identity".
        key: The key of the id, for the error.

    Raises:
        UserError: If there is no such operator; names the id, the allowed ones and the nearest.

    Example:
        >>> parse_operator("dilated_k3_d2").in_words
        'dilated 3×3, dilation 2'
    """
    names = {str(name): name for kind in OPERATOR_KINDS for name in operators_of(kind)}
    if isinstance(identifier, str) and identifier in names:
        return names[identifier]
    if not isinstance(identifier, str):
        raise UserError(f"{key}: {identifier!r} is not the id of an operator; write one like 'residual_k3_d1'")
    # The longest kind that the id starts with is the most likely one.
    kind = max((kind for kind in OPERATOR_KINDS if identifier.startswith(kind)), key=len, default=None)
    allowed = _pattern(kind) if kind else ", ".join(_pattern(kind) for kind in OPERATOR_KINDS)
    # No genotype, config or run may load code; the user names its file.
    own = "" if _SUFFIX.sub("", identifier) in OPERATOR_KINDS else "; an operator of your own needs --operators FILE"
    raise UserError(f"{key}: unknown operator {identifier!r}{nearest(identifier, names)}; allowed: {allowed}{own}")


def _pattern(kind: str) -> str:
    """Write the ids of a kind as a pattern, like residual_k{3,5,7}_d{1,2}."""
    allowed = OPERATOR_KINDS[kind]
    kernels = f"_k{{{','.join(map(str, allowed.kernels))}}}" if allowed.kernels else ""
    dilations = f"_d{{{','.join(map(str, allowed.dilations))}}}" if allowed.dilations else ""
    return f"{kind}{kernels}{dilations}"
