"""The names of the operators of the search space: kind, kernel size and dilation."""

import re
from dataclasses import dataclass

from ..runtime.errors import UserError
from .choices import nearest


@dataclass(frozen=True)
class OperatorKind:
    """What varies within one kind of operator.

    Args:
        words: The kind in words.
        kernels: Allowed kernel sizes in pixels; empty for an operator without one.
        dilations: Allowed dilations in pixels; empty for an operator without one.
        square: Whether the kernel spans two axes of the image (3×3) or one axis of channels (3).
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
    "identity": OperatorKind("identity", kernels=()),
}


@dataclass(frozen=True)
class OperatorName:
    """An operator's name in parts; `str()` gives its id.

    Args:
        kind: A key of `OPERATOR_KINDS`.
        kernel: Kernel size in pixels, or None where the kind has none.
        dilation: Dilation in pixels, or None where the kind has none.
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
        """The name as a reader says it, like "dilated 3×3, dilation 2"."""
        kind = OPERATOR_KINDS[self.kind]
        kernel = "" if self.kernel is None else f" {self.kernel}"
        if kernel and kind.square:
            kernel += f"×{self.kernel}"
        dilation = "" if self.dilation in (None, 1) else f", dilation {self.dilation}"
        return f"{kind.words}{kernel}{dilation}"


def operators_of(kind: str) -> tuple[OperatorName, ...]:
    """List the operators of one kind, smaller kernels and dilations first.

    Args:
        kind: A key of `OPERATOR_KINDS`.

    Returns:
        Every combination of the kind's kernels and dilations.
    """
    allowed = OPERATOR_KINDS[kind]
    return tuple(
        OperatorName(kind, kernel, dilation)
        for kernel in allowed.kernels or (None,)
        for dilation in allowed.dilations or (None,)
    )


# Every operator that timfuse brings along, in a fixed order.
ALL_OPERATORS = tuple(str(name) for kind in OPERATOR_KINDS for name in operators_of(kind))
_BUILT_IN = frozenset(OPERATOR_KINDS)
_KIND = re.compile("[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SUFFIX = re.compile("_[kd][0-9]+")  # ends the id of an operator


def add_operator_kind(name: str, kind: OperatorKind) -> None:
    """Add a user's kind of operator to `OPERATOR_KINDS`; it replaces one of that name that was added before.

    Args:
        name: What the ids of its operators start with: lower-case letters, digits and underscores.
        kind: What varies within it.

    Raises:
        UserError: The name is not such a name, is taken by a kind that timfuse brings along or ends like an id, or the
            kernels, dilations or words cannot be.
    """
    if not isinstance(name, str) or not _KIND.fullmatch(name):
        raise UserError(f"{name!r} is no name of an operator; write lower-case letters, digits and single underscores")
    if name in _BUILT_IN:
        raise UserError(f"the operator {name} comes along with timfuse; choose another name")
    if ending := re.search(f"{_SUFFIX.pattern}$", name):
        raise UserError(f"the name {name} ends in {ending[0]} as an operator's id does; name its kernels or dilations")
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
    """Read an operator's id.

    Args:
        identifier: Something like "residual_k5_d2", "channel_attention_k3" or "identity".
        key: Where the id stands, for the error.

    Returns:
        The name in parts.

    Raises:
        UserError: If there is no such operator; names the id, what is allowed and the nearest known id.

    >>> parse_operator("dilated_k3_d2").in_words
    'dilated 3×3, dilation 2'
    """
    names = {str(name): name for kind in OPERATOR_KINDS for name in operators_of(kind)}
    if isinstance(identifier, str) and identifier in names:
        return names[identifier]
    if not isinstance(identifier, str):
        raise UserError(f"{key}: {identifier!r} is not the id of an operator; write one like 'residual_k3_d1'")
    # The longest kind that the id starts with tells best what its author had in mind.
    kind = max((kind for kind in OPERATOR_KINDS if identifier.startswith(kind)), key=len, default=None)
    allowed = _pattern(kind) if kind else ", ".join(_pattern(kind) for kind in OPERATOR_KINDS)
    # Code runs only where the user names its file: no genotype, config or run can cause it to be loaded.
    own = "" if _SUFFIX.sub("", identifier) in OPERATOR_KINDS else "; an operator of one's own needs --operators FILE"
    raise UserError(f"{key}: unknown operator {identifier!r}{nearest(identifier, names)}; allowed: {allowed}{own}")


def _pattern(kind: str) -> str:
    """Write the ids of a kind as one pattern, like residual_k{3,5,7}_d{1,2}."""
    allowed = OPERATOR_KINDS[kind]
    kernels = f"_k{{{','.join(map(str, allowed.kernels))}}}" if allowed.kernels else ""
    dilations = f"_d{{{','.join(map(str, allowed.dilations))}}}" if allowed.dilations else ""
    return f"{kind}{kernels}{dilations}"
