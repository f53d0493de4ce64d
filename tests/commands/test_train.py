"""`timfuse train`."""

import shutil
from pathlib import Path

from timfuse.objectives.metrics import BASKET

from .conftest import searching, settings

TRAINING = """
device: cpu
data: {synthetic_pairs: 3, crop: 48, batch_size: 2}
train: {steps: 3, warmup: 1, validate_every: 2}
"""


def test_a_training_from_a_search_to_a_table_of_scores(run, refused):
    Path("training.yaml").write_text(TRAINING, encoding="utf-8")
    assert run(*searching("run=found"))[0] == 0
    command = ["train", "-c", "training.yaml", *settings("genotype=found", "init=found"), "--run", "it"]
    code, output, errors = run(*command)
    assert code == 0
    assert "validated: loss " in errors
    table = [line.split() for line in output.splitlines()[:5]]
    assert table[0] == ["validation", "method", "loss", *BASKET]
    assert [row[:2] for row in table[1:]] == [["mean", name] for name in ("best", "average", "maximum", "laplacian")]
    assert max(map(len, output.splitlines()[:5])) <= 80
    for path in ("it/weights.safetensors", "it/pictures", "it/history.jsonl"):
        assert path in output
        assert Path(path).exists()
    assert "it holds a run; go on with --resume" in refused(*command)
    assert run(*command, "--resume")[1] == output
    curves = Path("it/pictures/curves.svg").read_bytes()
    assert b">maximum<" in curves
    shutil.rmtree("it/pictures")
    assert run("visualize", "it")[0] == 0
    assert Path("it/pictures/curves.svg").read_bytes() == curves
    assert {"network.svg", "curves.svg", "curves.png"} <= {path.name for path in Path("it/pictures").iterdir()}
    Path("it/history.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    code, _, errors = run("visualize", "it")
    assert code == 2
    assert errors.startswith("error: the run's history holds no validation yet")
