"""Publishes a trained network on the Hugging Face Hub: its weights, its genotype and a card, and nothing else."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any, cast

from ..genotypes import Genotype, load_genotype, save_genotype
from ..genotypes.provenance import Provenance
from ..operators.hub_networks import PREFIX, hub_errors, import_hub, is_hub_name, parse_hub_name, without_bars
from ..operators.network_folders import find_network, shipped_names
from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.run_files import (
    CARD_FILE,
    CONFIG_FILE,
    DETECTORS_FOLDER,
    FIRST_STAGE_FOLDER,
    GENOTYPE_FILE,
    SPECIFICATION_FILE,
    WEIGHTS_FILE,
)
from ..runtime.yaml_text import read_mapping
from .model_card import make_card
from .trained_network import load_network

_NO_PATHS = ("classes", "device")  # keys of provenances with names that may hold a slash, as "AMD Ryzen w/ Radeon"


def push_network(run: str | Path, name: str, licence: str | None = None) -> str:
    """Publish a network on the hub, as a new commit; the repository is made if it is not there.

    Provenances are published without the folders of this machine: paths are cut to their last name.

    Args:
        run: Folder of a finished run, or a name on the hub.
        name: Its place on the hub, like user/name.
        licence: Short name of the licence of the weights for the card, like apache-2.0.

    Returns:
        The name by which `load` finds exactly this network, "hub:user/name@commit".

    Raises:
        UserError: If there is no such network, it comes with timfuse or has operators of the user, the hub refuses, or
            the package huggingface_hub is missing.

    Example:
        >>> push_network("runs/street", "user/street", "apache-2.0")  # doctest: +SKIP
        'hub:user/street@34e1f53b1074f813174eb834dbd4046bb07d4a54'
    """
    repository, revision = parse_hub_name(f"{PREFIX}{name}")
    if revision is not None:
        raise UserError(f"{name} names a revision, which a push makes; write {repository}")
    if run in shipped_names():
        raise UserError(f"{run} comes with timfuse; push a run")
    folder = find_network(run)
    genotype = load_network(folder).genotype  # the whole of it is checked before anything is sent
    if "operators" in genotype.provenance:
        raise UserError(f"{run} has operators of your own, whose code others do not have; push a network without them")
    hub = import_hub()
    with tempfile.TemporaryDirectory() as place:
        _copy(folder, Path(place))
        write_atomically(Path(place, CARD_FILE), _card(folder, load_genotype(Path(place)), name, licence))
        with hub_errors(f"{PREFIX}{name}"), without_bars():
            api = hub.HfApi()
            api.create_repo(repository, exist_ok=True)
            commit = api.upload_folder(repo_id=repository, folder_path=place, commit_message=f"timfuse push {name}")
    return f"{PREFIX}{name}@{commit.oid}"


def _copy(folder: Path, target: Path) -> None:
    """Copy the files of a network folder, and of its first stage and its detectors."""
    write_atomically(target / WEIGHTS_FILE, (folder / WEIGHTS_FILE).read_bytes())
    if (folder / GENOTYPE_FILE).is_file():
        genotype = load_genotype(folder)
        provenance = cast(Provenance, _without_folders(genotype.provenance))
        save_genotype(replace(genotype, provenance=provenance), target / GENOTYPE_FILE)
    else:
        write_atomically(target / SPECIFICATION_FILE, (folder / SPECIFICATION_FILE).read_bytes())
    for inner in (FIRST_STAGE_FOLDER, DETECTORS_FOLDER):
        if (folder / inner).is_dir():
            _copy(folder / inner, target / inner)


def _without_folders(value: Any, key: str = "") -> Any:
    """Cut all that may be a path in a provenance, keys as well, to its last name."""
    if isinstance(value, Mapping):
        cut: dict[str, Any] = {}
        for name, inner in value.items():
            short = unused = _last_name(name)
            number = 1
            while unused in cut:  # data sets of one name in two folders
                number += 1
                unused = f"{short} {number}"
            cut[unused] = _without_folders(inner, name)
        return cut
    if isinstance(value, list | tuple):
        return [_without_folders(inner, key) for inner in value]
    return _last_name(value) if isinstance(value, str) and key not in _NO_PATHS else value


def _last_name(text: str) -> str:
    if is_hub_name(text) or not {"/", "\\"}.intersection(text):
        return text
    return PureWindowsPath(text).name or "a folder"  # parts at both kinds of slashes


def _card(folder: Path, genotype: Genotype, name: str, licence: str | None) -> str:
    config = folder / CONFIG_FILE
    return make_card(
        genotype,
        name,
        size=(folder / WEIGHTS_FILE).stat().st_size,
        loss=read_mapping(config).get("loss") if config.is_file() else None,
        licence=licence,
    )
