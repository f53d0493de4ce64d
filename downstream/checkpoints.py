"""Saved networks of transformers: finding or downloading them, checking them, fitting them to a data set's classes."""

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_FILES = ["config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json"]
_PATIENCE = 5.0  # seconds to wait for the server of the published networks
# Entries of a configuration about its author, its storage, or code to run with it.
_NO_SETTINGS = {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"}


def require_transformers() -> None:
    """Raise a `UserError` if a package for networks of transformers is missing."""
    try:
        import scipy  # noqa: F401  (the losses of transformers match queries to objects with it)
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f"this task network needs the package {error.name}; pip install 'timfuse[tasks]'") from None


def find_checkpoint(source: str | Path) -> tuple[Path, dict[str, Any]]:
    """Find a saved network and read its configuration.

    Args:
        source: A folder, or the name of a published network such as `PekingU/rtdetr_r18vd`, which is downloaded unless
            an earlier download is on the disk.

    Returns:
        The folder with weights as safetensors, and the content of its `config.json`.

    Raises:
        UserError: If there is no such folder, the download fails, or the folder holds no network or a damaged one.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _download(str(source))
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{source} holds no network of transformers: there is no config.json; check the path")
    if not _has_weights(folder):
        raise UserError(
            f"{source} has no model.safetensors, and weights in other formats can run code; save it as safetensors"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged; get the network again")
    return folder, content


def make_config(content: Mapping[str, Any], families: Collection[str], source: str | Path) -> "PreTrainedConfig":
    """Build and check a configuration from plain data, as in `config.json`, for images of any size.

    Args:
        families: Values of `model_type` that are accepted.

    Raises:
        UserError: If the network is of another family, or the configuration is not valid.
    """
    from transformers import AutoConfig

    settings = {key: value for key, value in content.items() if key not in _NO_SETTINGS}
    family = settings.pop("model_type", None)
    if family not in families:
        raise UserError(
            f"{source} is a network of the kind {family}, which does not serve this task; "
            f"choose one of these kinds: {', '.join(sorted(families))}"
        )
    # Detectors may store values that depend on an image size; without the size they compute them for each image.
    settings |= {key: None for key in ("anchor_image_size", "eval_size") if key in settings}
    try:
        return AutoConfig.for_model(family, **settings)
    except Exception as error:  # Every kind of network has its own checks.
        raise UserError(f"{source} has a configuration that does not fit ({_reason(error)}); get it again") from None


def plain_config(config: "PreTrainedConfig") -> dict[str, Any]:
    """Turn a configuration into plain data that `make_config` takes."""
    content = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in content.items() if key not in _NO_SETTINGS}


def class_names(config: "PreTrainedConfig") -> tuple[str, ...]:
    """Return the names of a network's classes, in the order of its outputs."""
    labels: Any = config.id2label
    return tuple(labels.get(number, "") for number in range(len(labels)))


def channels_of(config: "PreTrainedConfig") -> int:
    """Return how many input channels a network or its backbone declares, 3 if neither does."""
    for part in (config, getattr(config, "backbone_config", None)):
        if channels := getattr(part, "num_channels", None):
            return int(channels)
    return 3


def build_model(auto: str, config: "PreTrainedConfig") -> "PreTrainedModel":
    """Build a network with fresh weights, in float32.

    Args:
        auto: Name of the class of transformers that builds networks for the task.

    Raises:
        UserError: If it needs a package that is not installed.
    """
    import transformers

    try:
        return getattr(transformers, auto).from_config(config, **_loading())
    except ImportError as error:
        raise UserError(_needs(config, error)) from None


def load_model(auto: str, folder: Path, config: "PreTrainedConfig", classes: Sequence[str]) -> "PreTrainedModel":
    """Load a network and fit it to the classes of a data set, in float32.

    Weights of a class that the saved network does not have under the same name start fresh.

    Args:
        auto: Name of the class of transformers that builds networks for the task.
        folder: Folder that `find_checkpoint` returned.
        config: Configuration of the saved network.
        classes: Names of the classes, compared without regard to capitals.

    Raises:
        UserError: If the weights are damaged or of another network, or it needs a package that is not installed.
    """
    import transformers

    try:
        with _silence():
            saved, found = getattr(transformers, auto).from_pretrained(
                folder,
                config=copy.deepcopy(config),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **_loading(),
            )
    except ImportError as error:
        raise UserError(_needs(config, error)) from None
    except Exception as error:  # safetensors, torch and transformers each have their own.
        raise UserError(f"cannot load the weights in {folder} ({_reason(error)}); get the network again") from None
    weights = saved.state_dict()
    if len(found["missing_keys"]) == len(weights):
        raise UserError(f"the weights in {folder} belong to another network than its config.json; get it again")
    fitted = copy.deepcopy(config)
    fitted.id2label = dict(enumerate(classes))
    fitted.label2id = {name: number for number, name in enumerate(classes)}
    model = build_model(auto, fitted)
    axes = _class_axes(auto, config)
    rows = _common_rows(class_names(config), classes)
    fresh = model.state_dict()
    model.load_state_dict(
        {
            name: _with_rows(fresh[name], weight, axes[name], rows) if name in axes else weight
            for name, weight in weights.items()
        }
    )
    return model


def _download(name: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download

    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise UserError(f"no folder {name}; check the path, or give the name of a published network")
    try:
        folder = Path(snapshot_download(name, allow_patterns=_FILES, local_files_only=True))
        if _has_weights(folder):
            return folder
    except OSError:
        pass  # There is no earlier download.
    try:
        # One request first: without a connection the download itself repeats its requests for half a minute.
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=_PATIENCE)
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # The errors of connection, server and disk have no common class.
        raise UserError(
            f"{name} is not a folder and cannot be downloaded ({_reason(error)}); check the name and the connection,"
            " give the folder of a saved network, or the file that registers it, as in timfuse --operators FILE ..."
        ) from None


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("model*.safetensors"))


def _loading() -> dict[str, Any]:
    # Code that comes with a network is never run: neither files beside it nor attention kernels fetched by name.
    return {"trust_remote_code": False, "attn_implementation": "eager", "dtype": torch.float32}


@contextmanager
def _silence() -> Iterator[None]:
    """Silence the reports and progress bars of transformers."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _class_axes(auto: str, config: "PreTrainedConfig") -> dict[str, int]:
    """Find the weights that grow with the number of classes; return the axis of each."""
    larger = copy.deepcopy(config)
    larger.num_labels = len(class_names(config)) + 1
    with torch.device("meta"):
        shapes, grown = (
            {name: weight.shape for name, weight in build_model(auto, each).state_dict().items()}
            for each in (config, larger)
        )
    return {
        name: next(axis for axis in range(len(shape)) if shape[axis] != grown[name][axis])
        for name, shape in shapes.items()
        if shape != grown[name]
    }


def _common_rows(saved: Sequence[str], wanted: Sequence[str]) -> dict[int, int]:
    """Map positions of wanted classes to positions of saved ones; the row after the classes means "no object"."""
    places = {name.casefold(): number for number, name in enumerate(saved)}
    common = {number: places[name.casefold()] for number, name in enumerate(wanted) if name.casefold() in places}
    return common | {len(wanted): len(saved)}


def _with_rows(fresh: Tensor, saved: Tensor, axis: int, rows: Mapping[int, int]) -> Tensor:
    pairs = [(to, of) for to, of in rows.items() if to < fresh.shape[axis] and of < saved.shape[axis]]
    if not pairs:
        return fresh
    to, of = torch.tensor(pairs).T
    return fresh.index_copy(axis, to, saved.index_select(axis, of))


def _needs(config: "PreTrainedConfig", error: ImportError) -> str:
    return f"this {config.model_type} network needs more packages ({_reason(error)}); install them or choose another"


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")
