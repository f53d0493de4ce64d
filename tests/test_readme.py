"""Every command and every example of the README and of the pages in docs runs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from timfuse import cli
from timfuse.data import write_scenes
from timfuse.genotypes import load_genotype
from timfuse.meta_init import MetaInitConfig
from timfuse.operators import build_network
from timfuse.runtime.config import load_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"```(bash|python)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]


def _commands():
    """The commands of each block, without blocks whose commands are all in blocks before."""
    blocks, known = [], set()
    for kind, text in BLOCKS:
        lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("timfuse ")]
        own = {tuple(shlex.split(line, comments=True)) for line in lines}
        if kind == "bash" and not own <= known:
            blocks.append(lines)
            known |= own
    return blocks


COMMANDS = _commands()
SHORT = ["search.steps=4", "search.warmup=2", "search.validate_every=4", "data.crop=48", "data.batch_size=1"]
SHORT += ["cost.height=16", "cost.width=16", "verify.candidates=1", "verify.rounds=1", "verify.steps=1"]
SMALL = {"tim": "space.channels=2", "pyramid": "space.channels=[[0, 2], [2, 4]]"}  # networks of a preset
SHORT_META_INIT = ["meta.pretrain=2", "meta.steps=2", "meta.warmup=1", "meta.validate_every=2", "inner.steps=1"]
SHORT_META_INIT += ["data.crop=48", "data.support=1", "data.query=1"]
SHORT_FINETUNING = ["train.steps=2", "train.warmup=1", "data.crop=48", "data.batch_size=2", "guidance.detector_steps=2"]
SHORT_STUDY = ["search.search.steps=2", "search.search.warmup=1", "search.data.crop=24", "search.data.batch_size=1"]
SHORT_STUDY += ["search.cost.height=16", "search.cost.width=16", "train.train.steps=2", "train.train.warmup=1"]
SHORT_STUDY += ["train.data.crop=48", "train.data.batch_size=1", "vary.search.space.channels=[2, 4]"]
SHORT_TRAINING = ["train.steps=4", "train.warmup=2", "train.validate_every=4", "data.crop=48", "data.batch_size=1"]
# What makes the commands of the README short; everything else stays as the reader would have it.
SETTINGS = {
    "search": SHORT,
    "latency": SHORT,
    "tune": SHORT_STUDY,
    "train": SHORT_TRAINING,
    "meta-init": SHORT_META_INIT,
    "finetune": SHORT_FINETUNING,
}


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A folder with a reader's pairs of every task in DIR, and a state dict of the authors' code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, task in load_config(MetaInitConfig, Path("meta-init")).used_tasks.items():
        for root in (*(task.root if isinstance(task.root, tuple) else [task.root]), "."):
            write_scenes(tmp_path / "DIR" / root, 6, task=name, height=64, width=64, seed=0)
    for folder, name in (("ir", "xray"), ("vis", "neutron")):
        shutil.copytree(tmp_path / "DIR" / folder, tmp_path / "DIR" / name)
    from timfuse.operators.released import released_name

    network = build_network(load_genotype("tim_ivif"))
    released = {released_name(network, key): tensor for key, tensor in network.state_dict().items()}
    torch.save(released, tmp_path / "STATE_DICT")
    for file, decorator in (("my_operators.py", "@register_operator"), ("my_detector.py", "@register_task_network")):
        own = next(text for kind, text in BLOCKS if kind == "python" and decorator in text)
        (tmp_path / file).write_text(own, encoding="utf-8")
    return tmp_path


def test_the_pages_have_commands_and_examples():
    assert len(COMMANDS) >= 5
    assert sum(kind == "python" for kind, _ in BLOCKS) >= 2


@pytest.mark.usefixtures("registrations", "reader")
@pytest.mark.parametrize("commands", COMMANDS, ids=lambda commands: commands[0].partition("  ")[0])
def test_the_commands_of_a_block_run_one_after_the_other(commands):
    for command in commands:
        words = shlex.split(command, comments=True)
        name = words[3 if words[1] == "--operators" else 1]
        settings = list(SETTINGS.get(name, []))
        if name in ("search", "latency"):
            tim = any("preset=tim" in word or word.startswith("search-") for word in words)
            settings.append(SMALL["tim" if tim else "pyramid"])
            settings += [] if "detection" not in words else ["verify.candidates=0"]
        words += [word for setting in settings for word in ("--set", setting)]
        if name == "tune":
            words += ["--trials", "1"]
        with pytest.raises(SystemExit) as finished:
            cli.main(words[1:])
        assert finished.value.code in (0, None), command


@pytest.mark.usefixtures("registrations")
@pytest.mark.parametrize("example", [text for kind, text in BLOCKS if kind == "python"])
def test_an_example_runs(example):
    exec(compile(example, "example", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    targets = [*re.findall(r"\]\(([^)#]+)", text), *re.findall(r'src="([^"]+)"', text)]
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []
