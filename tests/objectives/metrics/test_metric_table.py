"""All metrics together: against the field's values, frozen values, invariants and bad input."""

import csv
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from timfuse.data import find_pairs, luma, read_pixels
from timfuse.objectives.metrics import FIELD_METRICS, METRICS, bands, fusion_metrics, metric_table
from timfuse.runtime.errors import UserError

SMALL = [name for name in METRICS if name != "MS-SSIM"]  # those that do with 48 pixels


def close(actual, expected):
    assert actual.keys() == expected.keys()
    for name, values in actual.items():
        torch.testing.assert_close(
            values, expected[name], rtol=1e-6, atol=1e-12, msg=lambda text, name=name: name + text
        )


def test_names_and_order():
    assert FIELD_METRICS == ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM", "CC", "PSNR")
    assert tuple(METRICS) == (*FIELD_METRICS, "MEF-SSIM", "smear", "NMI", "MS-SSIM", "FMI", "Qcv")
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["smear", "Qcv"]


def test_values_of_the_field(shared):
    def read(name):
        return torch.from_numpy(np.array(Image.open(shared / "reference/metrics" / name)))[None, None]

    lines = (shared / "reference/metrics.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert len(rows) == 18
    for row in rows:
        pair = row["pair"]
        pictures = (read(f"{pair}.{kind}.png") for kind in (row["fused"], "first", "second"))
        for name, value in fusion_metrics(*pictures).items():
            assert value.item() == pytest.approx(float(row[name]), rel=1e-6), (pair, row["fused"], name)


PEERS = {"tno": ("SeAFusion", "IFCNN"), "medical/mri-pet": ("MATR",)}  # sets of which both sources are PNG


@pytest.mark.parametrize("root", PEERS)
def test_structure_and_smears_of_published_networks(shared, root):
    with (shared / "reference" / "peers-val2.csv").open() as file:
        rows = {(row["method"], row["dataset"]): row for row in csv.DictReader(file)}
    pairs = find_pairs(shared / "data" / root, root.rpartition("/")[2] if "/" in root else "infrared-visible", "val")
    for method in PEERS[root]:
        folder = shared / "peers" / root / method
        scores = []
        for pair in pairs:
            images = (*pair.read(), read_pixels(folder / f"{pair.name}.png"))
            first, second, fused = (torch.from_numpy(luma(image))[None, None] for image in images)
            scores.append(fusion_metrics(fused, first, second, ["MEF-SSIM", "smear"]))
        expected = rows[method, root]
        for name, key in (("MEF-SSIM", "MEFSSIM"), ("smear", "smear")):
            mean = float(np.mean([score[name].item() for score in scores]))
            assert mean == pytest.approx(float(expected[key]), abs=1e-4), (method, name)


def test_frozen_values(triple):
    """Values of this implementation when it agreed with the field's (the test above)."""
    frozen = {
        "EN": 7.458038063,
        "SD": 52.06613453,
        "SF": 29.52076346,
        "AG": 9.368442429,
        "MI": 3.626016015,
        "SCD": 0.3602343389,
        "VIF": 0.4894499432,
        "Qabf": 0.4216985883,
        "SSIM": 0.5439053717,
        "CC": 0.755584108,
        "PSNR": 14.10558827,
        "NMI": 0.4849665584,
        "MS-SSIM": 0.7305697095,
        "FMI": 0.3983093552,
        "Qcv": 260.4822915,
        "MEF-SSIM": 0.7528018938,
        "smear": 0.4605641912,
    }
    assert set(frozen) == set(METRICS)
    for name, value in fusion_metrics(*triple(180, 193), names=list(METRICS)).items():
        assert value.item() == pytest.approx(frozen[name], rel=1e-6), name


@settings(max_examples=12)
@given(st.integers(0, 2), st.integers(44, 66), st.integers(44, 66))
def test_sources_may_be_swapped(triple, seed, height, width):
    fused, first, second = triple(height, width, seed)
    close(fusion_metrics(fused, first, second, SMALL), fusion_metrics(fused, second, first, SMALL))


@settings(max_examples=12)
@given(st.integers(44, 66), st.integers(44, 66))
def test_batch_equals_single(triple, height, width):
    singles = [triple(height, width, seed) for seed in range(3)]
    batch = fusion_metrics(*(torch.cat(images) for images in zip(*singles, strict=True)), SMALL)
    for index, single in enumerate(singles):
        close(fusion_metrics(*single, SMALL), {name: values[index : index + 1] for name, values in batch.items()})


def test_several_fused_pictures_of_one_pair(triple):
    fused, first, second = triple(180, 190)
    several = torch.cat((fused, first, second, fused.flip(-1)))
    repeated = (image.expand(4, -1, -1, -1) for image in (first, second))
    expected = fusion_metrics(several, *repeated, list(METRICS))
    close(fusion_metrics(several, first, second, list(METRICS)), expected)


def test_bands_and_chunks_do_not_show(triple, monkeypatch):
    images = [torch.cat(images) for images in zip(*(triple(180, 190, seed) for seed in range(3)), strict=True)]
    expected = fusion_metrics(*images, list(METRICS))
    monkeypatch.setattr(bands, "_CPU_ELEMENTS", 1)
    monkeypatch.setattr(metric_table, "_CPU_PIXELS", 2 * 180 * 190)
    close(fusion_metrics(*images, list(METRICS)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float_pictures_equal_bytes(triple, dtype):
    images = triple(50, 47)
    near = [image.to(dtype) + 0.2 * (image < 255) for image in images]
    expected = fusion_metrics(*images, SMALL)
    for floats in ([image.to(dtype) for image in images], near):
        actual = fusion_metrics(*floats, SMALL)
        assert all(torch.equal(actual[name], expected[name]) for name in SMALL)


def test_layout_in_memory_does_not_matter(triple):
    images = triple(50, 47)
    strided = [torch.cat((image, image), 1).to(memory_format=torch.channels_last)[:, :1] for image in images]
    close(fusion_metrics(*strided, SMALL), fusion_metrics(*images, SMALL))


# Whether the metric is undefined, by flatness of the fused picture and of the sources; no other metric ever is.
UNDEFINED = {
    "SCD": lambda fused, first, second: first or second,
    "VIF": lambda fused, first, second: first or second,
    "Qabf": lambda fused, first, second: first and second,
    "CC": lambda fused, first, second: fused or first or second,
    "NMI": lambda fused, first, second: fused and (first or second),
    "FMI": lambda fused, first, second: fused and (first or second),
    "Qcv": lambda fused, first, second: first and second,
}


def test_flat_pictures_give_numbers_where_these_are_defined(picture):
    black, grey = (torch.full((1, 1, 176, 180), level, dtype=torch.uint8) for level in (0, 130))
    textured = picture(176, 180, 0)
    kinds = (black, grey, textured)
    for fused, first, second in ((f, a, b) for f in kinds for a in kinds for b in kinds):
        for name, value in fusion_metrics(fused, first, second, list(METRICS)).items():
            flat = (image is not textured for image in (fused, first, second))
            assert value.isnan().item() == (name in UNDEFINED and UNDEFINED[name](*flat)), name
            infinite = name == "PSNR" and torch.equal(fused, first) and torch.equal(fused, second)
            assert math.isinf(value.item()) == infinite, name


def test_only_what_is_asked_for(triple):
    fused, first, second = triple(60, 50)
    values = fusion_metrics(fused, first, second, ["SSIM", "EN"])
    assert list(values) == ["SSIM", "EN"]
    assert all(value.shape == (1,) and value.dtype == torch.float64 for value in values.values())


def test_unknown_metric(triple):
    with pytest.raises(UserError, match="unknown metric PSNRR; known are EN, SD, "):
        fusion_metrics(*triple(8, 8), ["PSNRR"])


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.smallest_side > 1])
def test_smallest_pictures(triple, name):
    side = METRICS[name].smallest_side
    assert fusion_metrics(*triple(side, side + 3), [name])[name].isfinite().all()
    with pytest.raises(UserError, match=rf"{name} needs pictures of at least {side}x{side} pixels, not {side + 9}x"):
        fusion_metrics(*triple(side - 1, side + 9), [name])


def test_one_pixel(picture):
    dot = picture(1, 1, 0)
    names = [name for name, metric in METRICS.items() if metric.smallest_side == 1]
    values = fusion_metrics(dot, dot, 255 - dot, names)
    assert {name for name, value in values.items() if value.isnan().any()} == {"SCD", "Qabf", "CC", "NMI", "Qcv"}


def test_flat_pictures_in_a_batch_are_those_alone(picture):
    flat, textured = torch.full((1, 1, 48, 50), 9, dtype=torch.uint8), picture(48, 50, 0)
    kinds = [(f, a, b) for f in (flat, textured) for a in (flat, textured) for b in (flat, textured)]
    batch = fusion_metrics(*(torch.cat(images) for images in zip(*kinds, strict=True)), SMALL)
    for index, images in enumerate(kinds):
        for name, value in fusion_metrics(*images, SMALL).items():
            torch.testing.assert_close(batch[name][index : index + 1], value, rtol=1e-6, atol=1e-12, equal_nan=True)
    one_pair = fusion_metrics(torch.cat([flat, textured]), textured, flat, ["CC", "Qabf", "NMI", "VIF"])
    assert {name: values.isnan().tolist() for name, values in one_pair.items()} == {
        "CC": [True, True],
        "Qabf": [False, False],
        "NMI": [True, False],
        "VIF": [True, True],
    }


def test_values_of_flat_pictures(picture):
    textured, black = picture(48, 50, 0), torch.zeros(1, 1, 48, 50, dtype=torch.uint8)
    values = fusion_metrics(black, textured, textured.flip(-1))
    assert [values[name].item() for name in ("EN", "SD", "SF", "AG", "MI")] == [0, 0, 0, 0, 0]
    correlation = fusion_metrics(textured, textured, textured.flip(-1), ["CC"])["CC"].item() * 2 - 1
    assert values["SCD"].item() == pytest.approx(-2 * correlation)  # of -B with A and of -A with B
    assert values["VIF"].item() == pytest.approx(0, abs=1e-9)
    assert values["PSNR"].item() == pytest.approx(10 * math.log10(255**2 / textured.double().square().mean()))


def test_each_metric_says_what_it_is():
    for metric in METRICS.values():
        assert metric.definition == metric.definition.strip(". \n")
        assert len(metric.definition) <= 120
    alone, sums, _, means = dict.fromkeys(METRICS[name].sources for name in FIELD_METRICS)
    groups = {group: [name for name in METRICS if METRICS[name].sources == group] for group in (alone, sums, means)}
    assert groups[alone] == ["EN", "SD", "SF", "AG"]
    assert groups[sums] == ["MI", "SCD", "VIF", "NMI"]
    assert groups[means] == ["SSIM", "CC", "PSNR", "MS-SSIM", "FMI"]


@pytest.mark.parametrize(
    "names", [("SCD", "VIF", "MI", "NMI"), ("SSIM", "CC", "MS-SSIM", "FMI"), ("EN", "SD", "SF", "AG")]
)
def test_sums_and_means_are_what_the_table_says(triple, names):
    """The number of a pair is the mean of those of its sources, each taken as both."""
    fused, first, second = triple(180, 190)
    same, other, both = (
        fusion_metrics(fused, *pair, names) for pair in ((first, first), (second, second), (first, second))
    )
    for name in set(names) - {"SCD"}:  # each of its terms has both sources
        assert both[name].item() == pytest.approx((same[name] + other[name]).item() / 2, rel=1e-6), name


def test_bad_pictures(triple):
    fused, first, second = triple(48, 50)
    for bad in (fused[0], fused.expand(-1, 3, -1, -1), fused.expand(0, -1, -1, -1)):
        with pytest.raises(ValueError, match="pictures"):
            fusion_metrics(bad, first, second)
    with pytest.raises(ValueError, match="different or no size"):
        fusion_metrics(fused[..., :-1], first, second)
    with pytest.raises(ValueError, match="N pairs or one"):
        fusion_metrics(fused.expand(3, -1, -1, -1), first.expand(2, -1, -1, -1), second.expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match=r"uint8 or float, not torch\.int64"):
        fusion_metrics(fused.long(), first, second)
    with pytest.raises(ValueError, match=r"look like 0\.\.1"):
        fusion_metrics(fused / 255, first, second)
    for wrong in (256.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"must lie in 0\.\.255"):
            fusion_metrics(fused.float().index_fill(3, torch.tensor([4]), wrong), first, second)


def test_stacks_are_scored_against_all_sources(triple):
    fused, first, second = triple(48, 52)
    names = [name for name, metric in METRICS.items() if metric.of_stacks]
    assert names == ["EN", "SD", "SF", "AG", "Qabf", "MEF-SSIM", "smear"]
    pair = fusion_metrics(fused, first, second, names)
    twice = fusion_metrics(fused, first, second, ["Qabf", "smear"], further=[second, first])
    for name, values in twice.items():
        torch.testing.assert_close(values, pair[name])
    flat = torch.full_like(first, 99)
    third = fusion_metrics(second, flat, flat, names, further=[second])
    assert third["smear"].item() == 0 < fusion_metrics(second, flat, flat, names)["smear"].item()
    assert third["MEF-SSIM"].item() > 0.95
    with pytest.raises(UserError, match="VIF is defined for two sources, not for 3; choose from EN, SD, SF, AG, Qabf"):
        fusion_metrics(fused, first, second, ["EN", "VIF"], further=[second])
