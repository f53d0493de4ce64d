"""The networks that come with timfuse: small, documented, and as good as their model cards say."""

import csv
from collections import defaultdict

import numpy as np
import pytest
from safetensors import safe_open

import timfuse
from timfuse.data import find_pairs
from timfuse.deploy import evaluate, fuse_files, load, load_network, shipped_names
from timfuse.genotypes import load_genotype
from timfuse.objectives.metrics import BASKET, FIELD_METRICS, ranks
from timfuse.operators import build_network, count_parameters
from timfuse.operators.network_folders import SHIPPED

TRIVIAL = {"average", "maximum", "copy_vis", "laplacian", "gff"}  # of the file of published methods
SETS = ("tno", "roadscene", "msrs")


def test_there_is_one_for_quality_and_one_for_speed():
    assert shipped_names() == ("ivif", "ivif-fast")


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_network_is_small_and_has_a_card(name):
    folder = SHIPPED / name
    assert (folder / "weights.safetensors").stat().st_size < 1_000_000
    network = build_network(load_genotype(folder))
    assert count_parameters(network) <= 60_000
    with safe_open(folder / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"genotype": name}
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("## Data", "## Command", "## Metrics", "## Terms"):
        assert heading in card
    assert f"{count_parameters(network):,}" in card


@pytest.mark.parametrize("name", shipped_names())
def test_the_zoo_has_the_architecture_of_a_shipped_network(name):
    shipped, own = load_network(name).genotype, load_genotype(name)
    assert (shipped.cells, shipped.channels, shipped.stem, shipped.head, shipped.norm) == (
        own.cells,
        own.channels,
        own.stem,
        own.head,
        own.norm,
    )


@pytest.mark.parametrize("name", shipped_names())
def test_equal_sources_are_hardly_changed_and_warm_targets_stay(name):
    scene = np.tile(np.linspace(40, 160, 96).astype(np.uint8), (80, 1))
    warm = scene.copy()
    warm[30:50, 40:56] = 240
    fuser = timfuse.load(name)
    assert np.abs(fuser(scene, scene).astype(int) - scene).mean() < 12
    fused = fuser(warm, scene)
    assert fused[34:46, 44:52].mean() > fused[34:46, 20:28].mean() + 60


@pytest.fixture(scope="module")
def published(shared):
    """The means of published and trivial methods on the validation pairs, {set: {method: {metric: mean}}}."""
    table = defaultdict(dict)
    with (shared / "reference" / "peers-val.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row["method"].endswith("_raw"):  # which undoes the stretch that a method's own script applies
                table[row["dataset"]][row["method"]] = {name: float(row[name]) for name in FIELD_METRICS}
    return table


@pytest.fixture(scope="module")
def ruled(shared):
    """The means of those methods whose pictures are there, by the ruler, {set: {method: {metric: mean}}}."""
    table = defaultdict(dict)
    with (shared / "reference" / "peers-val2.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row["method"].startswith("ivif"):
                scores = {name: float(row[name.replace("-SSIM", "SSIM")]) for name in BASKET}
                table[row["dataset"]][row["method"]] = scores
    return table


@pytest.fixture(scope="module")
def ours(shared, tmp_path_factory):
    """The means of ivif on the same pairs, {set: {metric: mean}}."""
    means = {}
    for name in SETS:
        folder, output = shared / "data" / name, tmp_path_factory.mktemp(name)
        pairs = find_pairs(folder, split="val")
        for pair in pairs:
            fuse_files(load("ivif"), [pair], output / f"{pair.name}.png")
        files = [output / f"{pair.name}.png" for pair in pairs]
        evaluation = evaluate(pairs, {"ivif": files}, (*BASKET, "MI"), trivial=False)
        means[name] = dict(zip(evaluation.metrics, evaluation.mean[0].tolist(), strict=True))
    return means


@pytest.mark.slow
def test_ivif_ranks_first_among_published_and_trivial_methods(ours, ruled):
    by_set = []
    for name in SETS:
        rows = {**ruled[name], "ivif": ours[name]}
        by_set.append(ranks(np.array([[row[metric] for metric in BASKET] for row in rows.values()]), BASKET))
    means = dict(zip(rows, np.mean(by_set, axis=(0, 2)), strict=True))
    assert min(means, key=means.__getitem__) == "ivif"


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["MI", "VIF", "Qabf"])
@pytest.mark.parametrize("name", SETS)
def test_ivif_is_above_every_published_network(ours, published, name, metric):
    best = max(row[metric] for method, row in published[name].items() if method not in TRIVIAL)
    assert ours[name][metric] > best


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["SCD", "SSIM"])
@pytest.mark.parametrize("name", SETS)
def test_ivif_is_above_the_median_of_the_published_networks(ours, published, name, metric):
    median = np.median([row[metric] for method, row in published[name].items() if method not in TRIVIAL])
    assert ours[name][metric] > median
