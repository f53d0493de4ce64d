"""Operators of the user's own: registered by a decorator, and found here by their kind."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import nn

from ..genotypes.operator_names import OperatorKind, OperatorName, add_operator_kind, parse_operator
from ..runtime.errors import UserError

PARAMETERS = ("channels", "kernel", "dilation", "norm")
_MARK = "timfuse_registered"  # an attribute of modules, so that copies of a network keep it

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class Registration:
    """What is known of a registered kind of operator.

    Attributes:
        build: Makes an operator.
        parameters: Those of `PARAMETERS` that it takes.
        radius: As given to `register_operator`.
        source: Where it was written: a file, or a module without one, such as that of a notebook.
        sha256: Of the file when it was registered; None where there is none.
    """

    build: Callable[..., nn.Module]
    parameters: tuple[str, ...]
    radius: int | None
    source: str
    sha256: str | None


REGISTERED: dict[str, Registration] = {}


def register_operator(
    name: str,
    *,
    kernels: Iterable[int] = (),
    dilations: Iterable[int] = (),
    words: str | None = None,
    radius: int | None = None,
) -> Callable[[Builder], Builder]:
    """Make a function, or a class of modules, a kind of operator that search spaces and genotypes may name.

    It returns a module that maps (N, channels, H, W) to the same shape, and takes what it needs of `channels`, at least
    1 and not the same in all places of a network; `kernel` and `dilation`, in pixels; and `norm`, "batch", "group" or
    "none", that of the network, which `timfuse.operators.normalisation.build_norm` makes a layer of. (With several
    processes that layer sees the whole batch, where torch's own batch normalisation sees the part of its process.)

    The decorator acts when Python imports the file. The command line imports the files that its option `--operators`
    names, and no others: no config, genotype, weights or run folder can cause code to run.

    Args:
        name: The ids of the operators are `name`, `name_k3` or `name_k3_d1`.
        kernels: Kernel sizes, odd numbers; none for a function without a parameter `kernel`.
        dilations: Dilations, from 1 on; none for a function without a parameter `dilation`.
        words: The name in words, for pictures; by default the name itself.
        radius: How many pixels away the inputs of an output pixel lie at most, for the largest kernel and dilation,
            means by `timfuse.operators.pooling.GlobalMean` aside. With it, large images are fused in tiles. None where
            that is unknown or the whole image: then images are fused as a whole, whatever memory that takes.

    Returns:
        A decorator that returns what it decorates.

    Raises:
        UserError: The name is taken or no name, or the function's parameters do not go with kernels and dilations.

    Example of blur_k3 and blur_k5::

        @register_operator("blur", kernels=(3, 5), radius=2)
        def blur(channels: int, kernel: int) -> nn.Module:
            return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
    """
    if not isinstance(name, str):
        raise UserError('register_operator needs the operator\'s name; write @register_operator("NAME")')

    def register(build: Builder) -> Builder:
        in_words = name.replace("_", " ") if words is None else words
        kind = OperatorKind(in_words, _as_tuple(kernels), _as_tuple(dilations))
        if radius is not None and (type(radius) is not int or radius < 0):
            raise UserError(f"radius of {name} must be a whole number of pixels from 0 on, or None, not {radius!r}")
        parameters = _parameters(name, build, kind)
        registration = Registration(build, parameters, radius, *_origin(build))
        known = REGISTERED.get(name)
        # The same function again is the file read again, or a cell of a notebook run again.
        if known and (known.source, known.build.__qualname__) != (registration.source, build.__qualname__):
            raise UserError(
                f"the operator {name} is registered already, by {known.build.__qualname__} of {known.source}; "
                "choose another name"
            )
        add_operator_kind(name, kind)
        REGISTERED[name] = registration
        return build

    return register


def build_registered(kind: str, **values: int | str) -> nn.Module:
    """Build an operator of a registered kind.

    Args:
        kind: Its name.
        **values: All of `PARAMETERS`.

    Returns:
        A module, known to `without_registered`.

    Raises:
        UserError: The function failed, or returned something else.
        ValueError: There is no such kind.
    """
    if kind not in REGISTERED:
        raise ValueError(f"no operator of kind {kind!r}")
    registration = REGISTERED[kind]
    given = {key: values[key] for key in registration.parameters}
    try:
        operator = registration.build(**given)
    except Exception as error:
        words = ", ".join(f"{key}={value}" for key, value in given.items())
        raise UserError(f"the operator {kind} cannot be built with {words}: {in_one_line(error)}") from error
    if not isinstance(operator, nn.Module):
        raise UserError(f"the function of {kind} returned a {type(operator).__name__}; return a torch.nn.Module")
    vars(operator)[_MARK] = True
    return operator


def is_registered(module: nn.Module) -> bool:
    """Tell whether a module is a registered operator, as `build_registered` makes them, or a copy of one."""
    return _MARK in vars(module)


def without_registered(network: nn.Module) -> Iterator[nn.Module]:
    """Walk the modules of a network, leaving out registered operators, of whose insides nothing is known."""
    if not is_registered(network):
        yield network
        for child in network.children():
            yield from without_registered(child)


def registered_radius(operator: OperatorName) -> int | None:
    """Return how far an operator of a registered kind looks, in pixels; None if that may be the whole image."""
    return REGISTERED[operator.kind].radius


def operator_sources(operators: Iterable[str]) -> dict[str, object]:
    """Say for a genotype's provenance where the registered ones of some operators come from.

    Args:
        operators: Ids.

    Returns:
        For each registered kind the name of its file and the file's SHA-256.
    """
    kinds = dict.fromkeys(parse_operator(name).kind for name in operators)
    return {
        kind: {"file": Path(REGISTERED[kind].source).name, "sha256": REGISTERED[kind].sha256}
        for kind in kinds
        if kind in REGISTERED
    }


def in_one_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def _as_tuple(values: Iterable[int]) -> tuple[int, ...]:
    """Sort what a user gave; what cannot be sorted is left to the check of the kind."""
    try:
        return tuple(sorted(values))
    except TypeError:
        return values  # type: ignore[return-value]


def _parameters(name: str, build: Callable[..., nn.Module], kind: OperatorKind) -> tuple[str, ...]:
    """List what a function takes, and check that this goes with its kind."""
    signature = inspect.signature(build).parameters
    allowed = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    unknown = [str(p) for key, p in signature.items() if key not in PARAMETERS or p.kind not in allowed]
    if unknown:
        raise UserError(
            f"the function of {name} has the parameters {', '.join(unknown)}, which nothing is given for; "
            f"take {', '.join(PARAMETERS)} or some of them"
        )
    for key, option, values in (("kernel", "kernels", kind.kernels), ("dilation", "dilations", kind.dilations)):
        if key in signature and not values:
            raise UserError(f"the function of {name} takes a {key}; say which there are, like {option}=(1, 3)")
        if key not in signature and values:
            raise UserError(f"{name} has {option}, but its function takes no {key}; add the parameter {key}")
    return tuple(signature)


def _origin(build: Callable[..., nn.Module]) -> tuple[str, str | None]:
    """Find the file of a function or class, and its SHA-256."""
    try:
        path = Path(inspect.getsourcefile(build) or "").resolve()
        return str(path), hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, TypeError):
        return build.__module__, None
