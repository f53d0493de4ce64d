"""The refusal of compiled modules where a gradient is differentiated again."""

from torch import nn

from ..runtime.errors import UserError


def refuse_compiled(module: nn.Module) -> None:
    """Raise a `UserError` if a part of the module is compiled: torch.compile does not support double backward."""
    for name, part in module.named_modules():
        # `torch.compile(module)` wraps, `module.compile()` keeps the class and sets an attribute.
        if hasattr(part, "_orig_mod") or part._compiled_call_impl is not None:
            raise UserError(
                f"module {name or type(module).__name__!r} is compiled, and torch.compile cannot "
                "differentiate a gradient again: pass the module as it was before torch.compile, "
                "or use first_order or gauss_newton"
            )
