"""Operators that users register by a decorator."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import nn

from ..genotypes.operator_names import OperatorKind, add_operator_kind, parse_operator
from ..runtime.errors import UserError, in_one_line

PARAMETERS = ("channels", "kernel", "dilation", "norm")
_MARK = "timfuse_registered"  # an attribute of modules, which copies of a network keep

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class Registration:
    """A registered kind of operator.

    Attributes:
        radius: Distance in pixels over which it looks, as in `register_operator`.
        source: File that defines `build`, or the module where there is no file, as in a notebook.
        sha256: SHA-256 of the file at the registration; None without a file.
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
    """Register a function or a class of modules as a kind of operator that search spaces and genotypes may name.

    It returns a module that maps (N, C, H, W) to the same shape. Its parameters are what it needs of `channels`, the
    number C, at least 1 and different within a network; `kernel` and `dilation` in pixels; and `norm`, "batch", "group"
    or "none", the normalisation of the network, of which `timfuse.operators.normalisation.build_norm` builds a layer.
    (With several processes, that layer normalises the whole batch, and a batch normalisation of torch only the part of
    its process.)

    The decorator acts when Python imports the file. The command line imports the files that its option `--operators`
    names, and no others. No config, genotype, weights or run folder can run code.

    Args:
        name: Kind of the operators, whose ids are `name`, `name_k3` or `name_k3_d1`.
        kernels: Kernel sizes in pixels, odd; empty for a function without the parameter `kernel`.
        dilations: Dilations in pixels, at least 1; empty for a function without the parameter `dilation`.
        words: The name in words, for pictures; default: the name.
        radius: Largest distance in pixels between an output pixel and its inputs, for the largest kernel and dilation;
            means by `timfuse.operators.pooling.GlobalMean` do not count. With it, large images are fused in tiles. None
            if it is unknown or the whole image; images are then fused as a whole.

    Raises:
        UserError: If the name is taken or not allowed, or the parameters do not agree with kernels and dilations.

    Example:
        >>> from timfuse.operators import build_operator
        >>> @register_operator("blur", kernels=(3, 5), radius=2)
        ... def blur(channels: int, kernel: int) -> nn.Module:
        ...     return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        >>> build_operator("blur_k5", 4)
        Conv2d(4, 4, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2), groups=4)
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
        # The same function comes again where a file is read again or a cell of a notebook is run again.
        if known and (known.source, known.build.__qualname__) != (registration.source, build.__qualname__):
            raise UserError(
                f"the operator {name} is registered already, by {known.build.__qualname__} of {known.source}; "
                "choose another name"
            )
        add_operator_kind(name, kind)
        REGISTERED[name] = registration
        return build

    return register


def build_registered(kind: str, values: Mapping[str, int | str]) -> nn.Module:
    """Build an operator of a registered kind.

    Raises:
        UserError: If the registered function fails or does not return a module.
    """
    registration = REGISTERED[kind]
    arguments = {key: values[key] for key in registration.parameters}
    try:
        operator = registration.build(**arguments)
    except Exception as error:
        words = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise UserError(f"the operator {kind} cannot be built with {words}: {in_one_line(error)}") from error
    if not isinstance(operator, nn.Module):
        raise UserError(f"the function of {kind} returned a {type(operator).__name__}; return a torch.nn.Module")
    vars(operator)[_MARK] = True
    return operator


def is_registered(module: nn.Module) -> bool:
    """Tell whether a module is a registered operator, or a copy of one."""
    return _MARK in vars(module)


def without_registered(network: nn.Module) -> Iterator[nn.Module]:
    """Walk the modules of a network without registered operators and their parts."""
    if not is_registered(network):
        yield network
        for child in network.children():
            yield from without_registered(child)


def operator_sources(operators: Iterable[str]) -> dict[str, object]:
    """Map each registered kind among some operators to the name of its file and the file's SHA-256."""
    kinds = dict.fromkeys(parse_operator(name).kind for name in operators)
    return {
        kind: {"file": Path(REGISTERED[kind].source).name, "sha256": REGISTERED[kind].sha256}
        for kind in kinds
        if kind in REGISTERED
    }


def _as_tuple(values: Iterable[int]) -> tuple[int, ...]:
    """Sort the numbers of a user; `add_operator_kind` refuses what cannot be sorted."""
    try:
        return tuple(sorted(values))
    except TypeError:
        return values  # type: ignore[return-value]


def _parameters(name: str, build: Callable[..., nn.Module], kind: OperatorKind) -> tuple[str, ...]:
    """List the parameters of a function, and check that they agree with its kernels and dilations."""
    signature = inspect.signature(build).parameters
    allowed = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    unknown = [str(p) for key, p in signature.items() if key not in PARAMETERS or p.kind not in allowed]
    if unknown:
        raise UserError(
            f"the function of {name} has the unknown parameters {', '.join(unknown)}; "
            f"take {', '.join(PARAMETERS)} or some of them"
        )
    for key, option, values in (("kernel", "kernels", kind.kernels), ("dilation", "dilations", kind.dilations)):
        if key in signature and not values:
            raise UserError(f"the function of {name} takes a {key}; list the values, like {option}=(1, 3)")
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
