"""`timfuse config` prints configs that are what the commands run."""

import re
from pathlib import Path

import pytest

from timfuse.finetune import FinetuneConfig
from timfuse.meta_init import AdaptConfig, MetaInitConfig
from timfuse.runtime.config import load_config
from timfuse.search import SearchConfig
from timfuse.training import TrainConfig
from timfuse.tuning import TuneConfig

MODELS = {
    "search": SearchConfig,
    "train": TrainConfig,
    "meta-init": MetaInitConfig,
    "adapt": AdaptConfig,
    "finetune": FinetuneConfig,
    "tune": TuneConfig,
}


@pytest.mark.parametrize("command", MODELS)
def test_the_printed_config_is_the_config_of_the_command(run, command):
    code, output, errors = run("config", command)
    assert (code, errors) == (0, "")
    Path("printed.yaml").write_text(output, encoding="utf-8")
    default = None if command == "adapt" else Path(command)
    assert load_config(MODELS[command], Path("printed.yaml")) == load_config(MODELS[command], default)
    assert run("config", command, "--config", "printed.yaml")[1] == output
    keys = [line.partition(":")[0] for line in output.splitlines() if re.match(r"\w", line)]
    assert keys == list(MODELS[command].model_fields)
    assert max(map(len, output.splitlines())) <= 125


@pytest.mark.parametrize("command", MODELS)
def test_every_key_has_its_meaning_and_its_values(run, command):
    lines = run("config", command)[1].splitlines()
    explained = {}  # by key, what stands above it where it comes first
    comment = []
    for line in lines:
        text = line.strip("# ")
        if re.match(r" *(# )?(  )*# ", line) or (line.startswith("# ") and not re.match(r"[\w-]+:( |$)", text)):
            comment.append(text)
        elif match := re.match(r"([\w.-]+):", text):
            explained.setdefault(match[1], " ".join(comment))
            comment = []
    for key in ("run", "seed", "data", "crop", "root", "validation"):
        if key in explained:
            assert explained[key], key
    assert explained["seed"].endswith("(whole number, at least 0)")
    assert explained["device"].endswith(" (text)")
    assert '"cuda:1"' in explained["device"]


def test_a_file_and_settings_are_resolved(run, refused):
    output = run("config", "search", "--config", "search-demo", "--set", "search.steps=30")[1]
    assert (
        "  # Number of iterations in the whole search. (whole number, at least 1; default 1200)\n  steps: 30\n"
        in output
    )
    assert "\n  warmup: 7\n" in output
    assert "\nrun: runs/demo/search\n" in output
    assert "COMMAND must be one of search, train, " in refused("config", "fuse")
    assert "unknown key stepz" in refused("config", "train", "--set", "stepz=3")
