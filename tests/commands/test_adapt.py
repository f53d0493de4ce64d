"""The line that `timfuse adapt` prints at its end fuses the pairs that it adapted to."""

import shlex
from pathlib import Path

import pytest

from .conftest import settings, write_image


@pytest.mark.parametrize(
    ("words", "first", "second"),
    [
        (["--task", "multi-focus"], "NAME-a.png", "NAME-b.png"),  # Lytro
        (["--task", "multi-exposure"], "NAME/NAME_a.png", "NAME/NAME_b.png"),  # MEFB
        ([], "athena_images/NAME/ir.png", "athena_images/NAME/vis.png"),  # TNO
        ([], "train/ir/NAME.png", "train/vis/NAME.png"),
        (settings("sources=[thermal, rgb]"), "thermal/NAME.png", "rgb/NAME.png"),
        (["--task", "xray-neutron", *settings("sources=[xray, neutron]")], "xray/NAME.png", "neutron/NAME.png"),
    ],
)
def test_the_printed_line_fuses(run, words, first, second):
    folder = Path("my pairs")
    for index, name in enumerate("abcdef"):
        write_image(folder / first.replace("NAME", name), (72, 64), seed=2 * index)
        write_image(folder / second.replace("NAME", name), (72, 64), seed=2 * index + 1)
    code, output, errors = run("adapt", *words, "--data", folder, "--steps", 1, "--pairs", 2, *settings("device=cpu"))
    assert code == 0, errors
    *_, last = output.splitlines()
    assert last.startswith("fuse      timfuse fuse --network runs/adapt --data 'my pairs' ")
    assert ("--sources" in last) == ("sources=[thermal, rgb]" in words)
    assert run(*shlex.split(last)[2:])[0] == 0
    assert sorted(path.name for path in Path("fused").iterdir()) == [f"{name}.png" for name in "abcdef"]


def test_without_data_the_line_leaves_the_folder_open(run):
    code, output, errors = run("adapt", "all-tasks", "-t", "mri-ct", "--steps", 1, "--pairs", 2, "--run", "new")
    assert code == 0, errors
    assert "1 steps on 2 pairs of MRI and CT in " in output
    assert output.splitlines()[-1] == "fuse      timfuse fuse --network new --data DIR -o fused"
