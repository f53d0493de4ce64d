"""Loads genotypes by name, YAML file or run folder, and saves them as YAML files."""

from collections.abc import Collection
from importlib import resources
from pathlib import Path

from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.run_files import GENOTYPE_FILE
from ..runtime.yaml_text import dump_yaml, parse_yaml
from .choices import nearest
from .genotype import CellGenotype, Genotype

SCHEMA = 1

_REQUIRED = ("schema", "name", "task", "network", "channels", "cells")
_OPTIONAL = ("norm", "stem", "head", "merge", "sources", "colour", "provenance")
_CELL_REQUIRED = ("kind", "operators")
_CELL_OPTIONAL = ("source", "level")

_ZOO = resources.files(__package__) / "zoo"


def zoo_names() -> tuple[str, ...]:
    """List the published genotypes that come with timfuse, sorted.

    Example:
        >>> zoo_names()[:4]
        ('detfusion', 'ivif', 'ivif-fast', 'ivif-nano')
    """
    files = (entry.name for entry in _ZOO.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


def load_genotype(name_or_path: str | Path) -> Genotype:
    """Load a genotype.

    Args:
        name_or_path: Name in the zoo, YAML file, or folder with `genotype.yaml`. Where both a name and a file exist,
            the zoo has precedence; write "./tim" for the file.

    Raises:
        UserError: If there is no such genotype or it is not valid; names the file and the key or line.

    Example:
        >>> load_genotype("tim").cells[1].operators
        ('dense_k3_d1', 'dilated_k3_d2')
    """
    if str(name_or_path) in zoo_names() and not isinstance(name_or_path, Path):
        entry = _ZOO / f"{name_or_path}.yaml"
        return _parse(entry.read_text(encoding="utf-8"), f"zoo/{entry.name}")
    path = Path(name_or_path)
    try:
        if path.is_dir():
            path = path / GENOTYPE_FILE
            if not path.is_file():
                raise UserError(f"{path.parent} has no {path.name}; name a YAML file or a finished run's folder")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        names = zoo_names()
        raise UserError(
            f"no genotype {str(name_or_path)!r}{nearest(str(name_or_path), names)}: "
            f"give a YAML file, a run folder, or one of {', '.join(names)}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8; give the YAML file of a genotype") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {str(path)!r}: {reason}; give a YAML file or a run folder") from error
    return _parse(text, str(path))


def save_genotype(genotype: Genotype, path: Path) -> None:
    """Write a genotype to a YAML file, from which `load_genotype` loads an equal one.

    Raises:
        UserError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_genotype(load_genotype("tim"), Path(folder, "genotype.yaml"))
        ...     load_genotype(folder) == load_genotype("tim")
        True
    """
    data: dict[str, object] = {
        "schema": SCHEMA,
        "name": genotype.name,
        "task": genotype.task,
        **({} if genotype.sources is None else {"sources": list(genotype.sources)}),
        **({} if genotype.colour is None else {"colour": genotype.colour}),
        "network": genotype.network,
        "channels": list(genotype.channels) if isinstance(genotype.channels, tuple) else genotype.channels,
        "norm": genotype.norm,
        "stem": genotype.stem,
        "head": genotype.head,
    }
    if genotype.merge is not None:
        data["merge"] = genotype.merge
    data["cells"] = [
        {
            "kind": cell.kind,
            **({} if cell.source is None else {"source": cell.source}),
            **({} if cell.level is None else {"level": cell.level}),
            "operators": list(cell.operators),
        }
        for cell in genotype.cells
    ]
    if genotype.provenance:
        data["provenance"] = genotype.provenance
    write_atomically(path, dump_yaml(data))


def _parse(text: str, where: str) -> Genotype:
    data = parse_yaml(text, where)
    try:
        return _from_plain(data)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _from_plain(data: object) -> Genotype:
    mapping = _mapping("", data)
    _check_schema(mapping)
    _check_keys("", mapping, _REQUIRED, _OPTIONAL)
    fields = {key: value for key, value in mapping.items() if key not in ("schema", "cells")}
    if fields.get("sources") is not None:
        fields["sources"] = tuple(_list("sources", fields["sources"]))
    if isinstance(fields["channels"], list):
        fields["channels"] = tuple(fields["channels"])
    cells = []
    for index, item in enumerate(_list("cells", mapping["cells"])):
        key = f"cells[{index}]"
        cell = _mapping(key, item)
        _check_keys(f"{key}.", cell, _CELL_REQUIRED, _CELL_OPTIONAL)
        cells.append(CellGenotype(**{**cell, "operators": tuple(_list(f"{key}.operators", cell["operators"]))}))
    return Genotype(**fields, cells=tuple(cells))


def _check_schema(mapping: dict) -> None:
    schema = mapping.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise UserError(f"schema {schema} was written by a newer timfuse (this one reads {SCHEMA}); upgrade timfuse")
    if type(schema) is not int or schema != SCHEMA:
        raise UserError(f"schema must be {SCHEMA}, not {schema!r}; start the file with 'schema: {SCHEMA}'")


def _check_keys(prefix: str, mapping: dict, required: Collection[str], optional: Collection[str]) -> None:
    known = (*required, *optional)
    for key in mapping:
        if key not in known:
            raise UserError(f"unknown key {prefix}{key}{nearest(str(key), known)}; known keys: {', '.join(known)}")
    for key in required:
        if key not in mapping:
            raise UserError(f"the key {prefix}{key} is missing; known keys: {', '.join(known)}")


def _mapping(key: str, value: object) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{key or 'a genotype'} must be a mapping of keys to values, not {_short(value)}")
    return value


def _list(key: str, value: object) -> list:
    if not isinstance(value, list):
        raise UserError(f"{key} must be a list, like [a, b], not {_short(value)}")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
