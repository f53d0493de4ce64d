"""The check whether the batches of a training fit into the memory."""

import subprocess
import sys

import pytest
import torch

from timfuse.genotypes import CellGenotype, Genotype, load_genotype
from timfuse.operators import build_network
from timfuse.operators.training_memory import check_training_memory
from timfuse.runtime import memory
from timfuse.runtime.errors import UserError

CPU = torch.device("cpu")


def needed(monkeypatch, genotype, **sizes):
    """The gigabytes that a training is told to need on a machine without memory."""
    monkeypatch.setattr(memory, "physical_memory", lambda: 0)
    with pytest.raises(
        UserError, match=r"would need [\d,]+ GB of memory, and there are 0; lower data\.crop"
    ) as refused:
        check_training_memory(genotype, device=CPU, **sizes)
    return int(str(refused.value).split("would need ")[1].split(" GB")[0].replace(",", ""))


@pytest.mark.parametrize("name", ["ivif-fast", "detfusion", "tim_ivif"])
def test_the_memory_grows_with_the_pixels(monkeypatch, name):
    genotype = load_genotype(name)
    small = needed(monkeypatch, genotype, crops=1000, crop=640)
    assert needed(monkeypatch, genotype, crops=2000, crop=640) == pytest.approx(2 * small, rel=0.01)
    assert needed(monkeypatch, genotype, crops=1000, crop=1280) == pytest.approx(4 * small, rel=0.01)


PASS = """
from pathlib import Path
import torch
from timfuse.genotypes import load_genotype
from timfuse.operators import build_network

def most():  # kilobytes; getrusage would also know of the process that started this one
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

network, images = build_network(load_genotype("ivif-fast")), torch.zeros(2, 16, 1, 512, 512)
before = most()
network(*images).mean().backward()
print(most() - before)
"""


def test_the_memory_is_that_of_a_pass_and_not_more(monkeypatch):
    told = needed(monkeypatch, load_genotype("ivif-fast"), crops=16_000, crop=512) / 1000  # of sixteen crops
    # In a process of its own, since this one may have taken as much before.
    done = subprocess.run([sys.executable, "-c", PASS], capture_output=True, text=True, check=True)
    used = int(done.stdout) * 1024 / 1e9
    assert 0.5 < told < 1.05 * used


def test_what_fits_passes_and_small_batches_are_not_counted(monkeypatch):
    check_training_memory(load_genotype("ivif-fast"), crops=8, crop=1024, device=CPU)
    monkeypatch.setattr(memory, "physical_memory", lambda: 0)
    check_training_memory(load_genotype("tim"), crops=8, crop=96, device=CPU)


@pytest.mark.parametrize("channels", [200_000, 10**9])
def test_a_network_wider_than_the_memory_is_refused(channels):
    genotype = Genotype("x", "mri-ct", "fusion", channels, (CellGenotype("successive", ("identity",)),))
    with pytest.raises(UserError, match=rf"a network of {channels} channels would need .*; lower channels"):
        build_network(genotype)
