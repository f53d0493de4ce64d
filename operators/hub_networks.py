"""Trained networks on the Hugging Face Hub: their names, and the download of the files of a network folder."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from ..runtime.errors import UserError, in_one_line
from ..runtime.run_files import (
    CARD_FILE,
    DETECTORS_FOLDER,
    FIRST_STAGE_FOLDER,
    GENOTYPE_FILE,
    SPECIFICATION_FILE,
    WEIGHTS_FILE,
)

PREFIX = "hub:"
# The rules of huggingface_hub, which has errors of its own for each.
_PART = r"\w(?:[\w.-]{0,94}\w)?"
_NAME = re.compile(rf"hub:(?![^@]*(?:--|\.\.))({_PART}/{_PART})(?<!\.git)(?:@([\w./-]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE = 10.0  # seconds for an answer
_FILES = {CARD_FILE, SPECIFICATION_FILE, WEIGHTS_FILE, GENOTYPE_FILE}
_FOLDERS = {FIRST_STAGE_FOLDER, DETECTORS_FOLDER}
# What the page of a network may hold; anything else could be code, or data that runs code when it is read.
_DATA = {".safetensors", ".yaml", ".yml", ".json", ".csv", ".txt", ".md", ".png", ".jpg", ".jpeg", ".webp", ".svg"}
_TEXTS = {".gitattributes", ".gitignore", "LICENSE", "LICENCE", "NOTICE"}


def is_hub_name(name: str) -> bool:
    """Tell whether a network is named by its place on the hub, like `hub:user/name`."""
    return name.startswith(PREFIX)


def find_on_hub(name: str) -> Path:
    """Download a network, unless this commit of it was downloaded before.

    Only weights, descriptions and the card are downloaded, and a repository that holds code or pickled data is refused.

    Args:
        name: A name such as `hub:user/name`, or `hub:user/name@revision` with a branch, a tag or a commit. A network
            that was downloaded before is found by its whole commit without a connection.

    Returns:
        The network folder in the cache of huggingface_hub, which has the name of the commit.

    Raises:
        UserError: If the name is malformed, there is no such network or revision, it holds something else than data,
            there is no connection or the package huggingface_hub is missing.
    """
    repository, revision = parse_hub_name(name)
    hub = import_hub()
    if revision is not None and _COMMIT.fullmatch(revision):
        with hub_errors(name):
            cached = hub.try_to_load_from_cache(repository, GENOTYPE_FILE, revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent
    api = hub.HfApi()
    with hub_errors(name):
        info = api.model_info(repository, revision=revision, timeout=_PATIENCE)
    files = [sibling.rfilename for sibling in info.siblings or ()]
    _check_files(name, files)
    # The genotype comes last: it marks the folder as complete.
    wanted = sorted(filter(_is_needed, map(PurePosixPath, files)), key=PurePosixPath(GENOTYPE_FILE).__eq__)
    with hub_errors(name), without_bars():
        for file in wanted:
            path = api.hf_hub_download(repository, str(file), revision=info.sha, etag_timeout=_PATIENCE)
    return Path(path).parent


def parse_hub_name(name: str) -> tuple[str, str | None]:
    """Split a name into repository and revision, which may be None; raise a `UserError` if it is malformed."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"{name!r} is no name on the hub; write hub:user/name or hub:user/name@revision, "
            "with single - and . inside of user and name, and without .git"
        )
    return match[1], match[2]


def import_hub() -> Any:
    """Import the package huggingface_hub, or raise a `UserError` that says how to install it."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError("the hub needs the package huggingface_hub; pip install timfuse[hub]") from None
    return huggingface_hub


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong on the hub into a `UserError` within a block."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError:
        raise UserError(f"{name} is no revision on the hub; name a branch, a tag or a whole commit after @") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"no {name} on the hub; check the name, or log in by `hf auth login` if it is private"
        ) from None
    except Exception as error:  # the errors of connection, server and disk have no common class
        raise UserError(f"{name}: the hub fails ({in_one_line(error)}); check the name and the connection") from None


def _is_needed(file: PurePosixPath) -> bool:
    *folders, last = file.parts
    return last in _FILES and _FOLDERS.issuperset(folders)


def _check_files(name: str, files: list[str]) -> None:
    for file in map(PurePosixPath, files):
        if file.suffix.lower() not in _DATA and file.name not in _TEXTS:
            raise UserError(f"{name} holds {file}, which may run code; networks are safetensors and YAML, with a card")
    for needed in (GENOTYPE_FILE, WEIGHTS_FILE):
        if needed not in files:
            raise UserError(f"{name} holds no network of timfuse: it has no {needed}")


@contextmanager
def without_bars() -> Iterator[None]:
    """Show no progress bars of huggingface_hub within a block."""
    utils: Any = import_module("huggingface_hub.utils")  # no attribute of the package before its first use
    shown = not utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            utils.enable_progress_bars()
