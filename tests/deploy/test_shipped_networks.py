"""The networks that come with timfuse: small, documented, and as good as their model cards say."""

import csv
from collections import defaultdict

import numpy as np
import pytest
import torch
from safetensors import safe_open

import timfuse
from timfuse.data import find_pairs, luma, unit_range
from timfuse.deploy import evaluate, fuse_files, load, load_network, shipped_names
from timfuse.genotypes import TASKS, load_genotype
from timfuse.objectives import training_loss
from timfuse.objectives.metrics import BASKET, METRICS, ranks, ruler_of
from timfuse.objectives.trivial_fusion import TRIVIAL as TRIVIAL_FUSION
from timfuse.operators import build_network, count_parameters
from timfuse.operators.network_folders import SHIPPED, shipped_for
from timfuse.runtime.errors import UserError

TRIVIAL = {"average", "maximum", "copy_vis", "laplacian", "gff"}  # of the files of published methods
SETS = {
    "ivif": ("tno", "roadscene", "msrs"),
    "mri-ct": ("medical/mri-ct",),
    "mri-pet": ("medical/mri-pet",),
    "mri-spect": ("medical/mri-spect",),
    "multi-exposure": ("mef",),
    "multi-focus": ("mff",),
}
"""The sets on which each network is compared with published ones."""
PLACES = [(name, place) for name, places in SETS.items() for place in places]


def test_there_is_one_for_each_task_and_two_for_speed():
    assert shipped_names() == ("ivif", "ivif-fast", "ivif-nano", *list(TASKS)[1:])
    assert [load_network(shipped_for(task)).genotype.task for task in TASKS] == list(TASKS)
    with pytest.raises(UserError, match=r"no network for xray-neutron comes with timfuse"):
        shipped_for("xray-neutron")


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_network_is_small_and_has_a_card(name):
    folder = SHIPPED / name
    assert (folder / "weights.safetensors").stat().st_size < 1_000_000
    network = build_network(load_genotype(folder))
    assert count_parameters(network) <= 250_000
    with safe_open(folder / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"genotype": name}
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("## Data", "## Command", "## Metrics", "## Limits", "## Terms"):
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
def test_of_equal_sources_at_most_the_contrast_is_changed(name):
    scene = np.tile(np.linspace(40, 160, 96).astype(np.uint8), (80, 1))
    fused = timfuse.load(name)(scene, scene).astype(int)
    assert np.corrcoef(fused.ravel(), scene.ravel())[0, 1] > 0.99
    if not name.startswith("mri"):  # a scene is no slice of a head, and those raise its contrast further
        assert np.abs(fused - scene).mean() < 32


@pytest.mark.parametrize("name", ["ivif", "ivif-fast"])
def test_warm_targets_stay(name):
    scene = np.tile(np.linspace(40, 160, 96).astype(np.uint8), (80, 1))
    warm = scene.copy()
    warm[30:50, 40:56] = 240
    fused = timfuse.load(name)(warm, scene)
    assert fused[34:46, 44:52].mean() > fused[34:46, 20:28].mean() + 60


@pytest.fixture(scope="module")
def published(shared):
    """The means of published and trivial methods on the validation pairs, {file: {set: {method: {metric: mean}}}}.

    The second file has the metrics of the ruler, for the methods whose pictures are there.
    """
    tables = {}
    for name in ("peers-val", "peers-val2"):
        tables[name] = defaultdict(dict)
        with (shared / "reference" / f"{name}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                # Undoing the stretch that a method's own script applies is no other method.
                if not row["method"].startswith("ivif") and not row["method"].endswith("_raw"):
                    known = {metric: row.get(metric.replace("-SSIM", "SSIM")) for metric in METRICS}
                    scores = {metric: float(value) for metric, value in known.items() if value is not None}
                    tables[name][row["dataset"]][row["method"]] = scores
    return tables


@pytest.fixture(scope="module")
def ours(shared, tmp_path_factory):
    """The means of each shipped network on the same pairs, {set: {metric: mean}}."""
    means = {}
    for name, place in PLACES:
        fuser, output = load(name), tmp_path_factory.mktemp(name)
        pairs = find_pairs(shared / "data" / place, fuser.network.genotype.task, "val")
        for pair in pairs:
            fuse_files(fuser, [pair], output / f"{pair.name}.png")
        files = [output / f"{pair.name}.png" for pair in pairs]
        evaluation = evaluate(pairs, {name: files}, BASKET, trivial=False)
        means[place] = dict(zip(evaluation.metrics, evaluation.mean[0].tolist(), strict=True))
    return means


@pytest.mark.slow
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_first_by_the_ruler_among_published_and_trivial_methods(ours, published, name, place):
    ruler = ruler_of(load_network(name).genotype.task)
    rows = {**published["peers-val2"][place], name: ours[place]}
    means = ranks(np.array([[row[metric] for metric in ruler] for row in rows.values()]), ruler).mean(1)
    assert list(rows)[means.argmin()] == name


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["VIF", "Qabf"])
@pytest.mark.parametrize("place", SETS["ivif"])
def test_ivif_is_above_every_published_network_but_stretches_of_the_maximum(ours, published, place, metric):
    rows = published["peers-val"][place]
    assert ours[place][metric] > max(row[metric] for method, row in rows.items() if method not in TRIVIAL)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["SCD", "SSIM"])
@pytest.mark.parametrize("place", SETS["ivif"])
def test_ivif_is_above_the_median_of_the_published_networks(ours, published, place, metric):
    rows = published["peers-val"][place]
    median = np.median([row[metric] for method, row in rows.items() if method not in TRIVIAL])
    assert ours[place][metric] > median


def optimised(loss, first, second):
    """The picture itself, optimised pixel by pixel from the fusion by Laplacian pyramids."""
    picture = TRIVIAL_FUSION["laplacian"](first, second).clamp(0, 1).requires_grad_()
    optimiser = torch.optim.Adam([picture], 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss(picture, first, second).backward()
        optimiser.step()
    return picture.detach()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ivif", "mri-ct", "multi-exposure"])
def test_training_captures_much_of_what_there_is_to_learn(shared, name):
    genotype = load_network(name).genotype
    loss = training_loss(genotype.task)
    pairs = find_pairs(shared / "data" / SETS[name][-1], genotype.task, "val")
    crops = []
    for pair in (pairs[0], pairs[-1]):
        height, width = (length // 2 for length in pair.read()[0].shape[:2])
        area = slice(height - 48, height + 48), slice(width - 48, width + 48)
        crops.append([torch.from_numpy(unit_range(luma(pixels)))[None, None, *area] for pixels in pair.read()])
    torch.manual_seed(0)
    methods = {**TRIVIAL_FUSION, "untrained": build_network(genotype).eval(), "trained": load(name).network}
    with torch.no_grad():
        values = {method: sum(loss(fuse(*crop), *crop).item() for crop in crops) for method, fuse in methods.items()}
    oracle = sum(loss(optimised(loss, *crop), *crop).item() for crop in crops)
    best = min(values[method] for method in TRIVIAL_FUSION)
    captured = {method: (best - values[method]) / (best - oracle) for method in ("untrained", "trained")}
    assert captured["trained"] > captured["untrained"] + 0.25
