"""Task networks of users: registered by a file that is named, built, kept in a run folder and refused in one line."""

from pathlib import Path

import pytest
import torch
from torch import nn

from timfuse.data import Objects, PairBatch
from timfuse.downstream import (
    Detections,
    TaskNetwork,
    build_task_network,
    keep_task_network,
    load_task_network,
    register_task_network,
)
from timfuse.downstream.registered import REGISTERED, load_extensions
from timfuse.runtime.errors import UserError

CLASSES = ("person", "car")
FILE = """
import torch
from timfuse.downstream import Detections, TaskNetwork, register_task_network

@register_task_network("of-a-file")
class OfAFile(TaskNetwork):
    task, channels = "detection", 3

    def __init__(self, classes):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, len(classes), 1)
"""


@pytest.fixture(autouse=True)
def registry():
    """What a test registers is forgotten."""
    before = dict(REGISTERED)
    yield
    REGISTERED.clear()
    REGISTERED.update(before)


class Bright(TaskNetwork):
    """Finds one object, as sure as the image is bright."""

    task, channels = "detection", 3

    def __init__(self, classes):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(len(classes)))

    def predict(self, images):
        box = torch.tensor([[0.0, 0, 4, 4]])
        return [Detections(box, (image.mean() * self.scale[:1]).detach(), torch.tensor([0])) for image in images]


def test_a_registered_network_is_built_kept_and_loaded(tmp_path):
    register_task_network("bright")(Bright)
    network = build_task_network("detection", "bright", CLASSES, width=8, channels=3)
    assert (network.classes, network.kind, network.channels) == (CLASSES, "bright", 3)
    keep_task_network(network, tmp_path)
    again = load_task_network(tmp_path)
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(again.predict(image)[0].scores, network.predict(image)[0].scores)
    assert not again.training
    del REGISTERED["bright"]
    with pytest.raises(UserError, match=r"specification\.yaml: no file registers the task network bright; name it, as"):
        load_task_network(tmp_path)


def test_a_network_without_a_loss_scores_and_does_not_guide():
    register_task_network("bright")(Bright)
    network = build_task_network("detection", "bright", CLASSES, width=8, channels=3)
    batch = PairBatch(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), (Objects(torch.zeros(0, 4), torch.zeros(0)),))
    with pytest.raises(UserError, match="the task network bright has no loss by which it could learn or guide"):
        network.loss(torch.rand(1, 3, 8, 8), batch)


def test_what_does_not_fit_is_refused():
    register_task_network("bright")(Bright)
    register_task_network("broken")(lambda classes: classes[7])
    register_task_network("layer")(lambda classes: nn.Identity())
    for task, name, channels, message in (
        ("segmentation", "bright", 3, "bright has task = 'detection', not 'segmentation'; set this or downstream.kind"),
        ("detection", "bright", 1, "bright takes images of 3 planes, not 1; set downstream.colour=true"),
        ("detection", "broken", 1, "broken cannot be built: IndexError: tuple index out of range"),
        ("detection", "layer", 1, "layer is a Identity; return a timfuse.downstream.TaskNetwork"),
    ):
        with pytest.raises(UserError, match=message):
            build_task_network(task, name, CLASSES, width=8, channels=channels)
    for name in ("compact", "bright"):
        with pytest.raises(UserError, match=f"the name {name} of a task network is taken"):
            register_task_network(name)(lambda classes: nn.Identity())


def test_a_file_registers_networks_and_one_that_registers_nothing_is_refused(tmp_path: Path):
    (tmp_path / "mine.py").write_text(FILE)
    load_extensions(tmp_path / "mine.py")
    assert build_task_network("detection", "of-a-file", CLASSES, width=8, channels=3).layer.out_channels == 2
    load_extensions(tmp_path / "mine.py")  # the same file again
    (tmp_path / "nothing.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"nothing.py registers nothing; write @register_operator"):
        load_extensions(tmp_path / "nothing.py")
