"""`timfuse meta-init`, and `timfuse adapt` from the run that it writes."""

import shutil
from pathlib import Path

from .conftest import write_image

META = """
device: cpu
genotype: tiny-network.yaml
data: {synthetic_pairs: 6, crop: 16, support: 1, query: 1}
inner: {steps: 2}
meta: {pretrain: 2, steps: 2, warmup: 1, validate_every: 2}
tasks: {mri-ct: {loss: {ssim: 0}}, multi-focus: {weight: 0, loss: {ssim: 0}}}
"""
NETWORK = """
schema: 1
name: tiny
task: infrared-visible
network: fusion
channels: 2
cells: [{kind: successive, operators: [dilated_k3_d1]}]
"""


def test_from_pairs_to_an_initialisation_to_a_network_that_fuses(run, refused):
    Path("meta.yaml").write_text(META, encoding="utf-8")
    Path("tiny-network.yaml").write_text(NETWORK, encoding="utf-8")
    command = ["meta-init", "--config", "meta.yaml"]
    code, output, errors = run(*command)
    assert code == 0, errors
    table = [line.split() for line in output.splitlines()[:3]]
    assert table[0][:7] == ["validation", "loss", "after", "steps", "0", "1", "2"]
    assert [row[0] for row in table[1:]] == ["mri-ct", "multi-focus"]
    for path in ("weights.safetensors", "pictures", "history.jsonl"):
        assert f"runs/meta-init/{path}" in output
        assert Path("runs/meta-init", path).exists()
    assert "runs/meta-init holds a run; go on with --resume" in refused(*command)
    curves = Path("runs/meta-init/pictures/curves.svg").read_bytes()
    shutil.rmtree("runs/meta-init/pictures")
    assert run("visualize", "runs/meta-init")[0] == 0
    assert Path("runs/meta-init/pictures/curves.svg").read_bytes() == curves

    for index in range(6):
        for side, folder in enumerate(("mri", "ct")):
            write_image(Path("data", folder, f"{index}.png"), seed=2 * index + side)
    adapting = ["adapt", "runs/meta-init", "--task", "mri-ct", "--data", "data", "--steps", 3, "--pairs", 2]
    code, output, errors = run(*adapting)
    assert code == 0, errors
    start, *table = (line.split() for line in output.splitlines()[:4])
    assert start == ["start", "runs/meta-init"]
    assert table[0] == ["validation", "loss", "after", "steps", "0", "1", "2", "3"]
    assert [row[:-4] for row in table[1:]] == [["mri-ct"], ["random", "weights,", "Adam"]]
    assert "3 steps on 2 pairs of MRI and CT in " in output
    assert "weights   runs/adapt/weights.safetensors, " in output
    last_is_worse = float(table[1][-1]) > float(table[1][-4])
    assert ("note      after 3 steps the network does worse" in output) == last_is_worse
    assert "runs/adapt holds a run" in refused(*adapting)
    assert run(*adapting, "--overwrite", "--set", "seed=1")[0] == 0
    assert run("fuse", "--data", "data", "--network", "runs/adapt", "-o", "fused")[0] == 0
    assert len(list(Path("fused").iterdir())) == 6
