"""The commands by what they are for: to `use` networks, to `train` them, and to `look` at them."""

__all__: list[str] = []
