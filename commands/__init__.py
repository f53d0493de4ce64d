"""The commands of the command line in three groups: to `use` networks, to `train` them, and to `look` at them."""

__all__: list[str] = []
