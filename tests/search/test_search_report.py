"""The report of a search: whole in itself, well formed, and with what was found."""

import base64
import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from timfuse import load
from timfuse.data import unit_range, write_pixels
from timfuse.genotypes import load_genotype, save_genotype
from timfuse.runtime.distribution import ALONE
from timfuse.search import search
from timfuse.search.search_report import report_page
from timfuse.search.search_setup import open_batches

from ..pages import Structure, untimed
from ..tiny_runs import tiny_search

FAST = {"steps": 3, "warmup": 1}
OPERATORS = ["residual_k3_d1", "dilated_k3_d2", "dilated_k3_d1", "separable_k3", "dense_k3_d1"]
PYRAMID = {
    "preset": "pyramid",
    "channels": [4, 6],
    "cells": ["successive", "multi_scale"],
    "levels": [0, 1],
    "operators": OPERATORS,
}
VERIFIED = {
    "data": {"crop": 24, "batch_size": 1},
    "space": PYRAMID,
    "verify": {"candidates": 3, "rounds": 2, "steps": 2, "validation_pairs": 1},
}
SEARCHES = {
    "one seed": {},
    "several seeds": {"seeds": 2},
    "detection": {"downstream": {"kind": "detection", "width": 8}, "data": {"crop": 32}},
    "verified": VERIFIED,
    "verified, several seeds, decomposition": {
        **VERIFIED,
        "seeds": 2,
        "space": {"channels": 4, "cells": ["decomposition"], "operators": OPERATORS},
    },
}
EXAMPLE = re.compile(r'<figure><img src="data:image/jpeg;base64,([^"]+)" alt="[^"]*"><figcaption>([^<]+)</figcaption>')


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A function that returns the config of a search that has ended, by its name in `SEARCHES`."""
    configs = {}

    def finish(name):
        if name not in configs:
            configs[name] = tiny_search(tmp_path_factory.mktemp("runs") / "found", search=FAST, **SEARCHES[name])
            search(configs[name])
        return configs[name]

    return finish


def page_of(config):
    return (config.run / "report.html").read_text(encoding="utf-8")


def words_of(page):
    return " ".join(" ".join(Structure(page).texts).split())


def examples_of(page):
    """The shown images, in the order of the page, with their labels."""
    return [
        (label, np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))))
        for content, label in EXAMPLE.findall(page)
    ]


@pytest.mark.parametrize("name", SEARCHES)
def test_the_page_needs_nothing_but_itself_and_is_well_formed(finished, name):
    page = page_of(finished(name))
    structure = Structure(page)
    assert structure.title == "Search found"
    addresses = [value for key, value in structure.attributes if key in ("src", "href", "srcset", "data")]
    assert len(addresses) >= 2 + 5
    assert all(address.startswith("data:image/") for address in addresses)
    assert not re.search(r"https?:|file:|//[a-z]+\.|@import|url\(|<script", page)
    assert "default-src 'none'" in page
    assert "{{" not in page


@pytest.mark.parametrize("name", SEARCHES)
def test_the_page_tells_what_was_found_and_how(finished, name):
    config = finished(name)
    genotype, words = load_genotype(config.run), words_of(page_of(config))
    assert " | ".join(", ".join(cell.operators) for cell in genotype.cells) in words
    provenance = genotype.provenance
    assert (
        f"{provenance['flops_640x480'] / 1e9:.4f} GFLOPs at 640x480, {provenance['parameters']:,} parameters" in words
    )
    assert "infrared-visible: infrared and visible" in words
    assert "3, of which the first 1 train the weights alone" in words
    assert "gauss_newton" in words
    assert ("detection on the fused images scores the architecture" in words) == (name == "detection")
    assert f"{provenance['data']['validation_pairs']} validate" in words
    assert provenance["reason"]["rule"] in words
    assert (f"that of seed {provenance.get('seeds', {}).get('picked')} is kept" in words) == (config.seeds > 1)
    assert ("Verification" in words) == bool(config.verify.candidates)


@pytest.mark.parametrize("name", ["one seed", "verified"])
def test_the_examples_are_the_whole_validation_pairs_of_the_search(finished, name):
    config = finished(name)
    page = page_of(config)
    (pairs,) = open_batches(config, torch.device("cpu"), ALONE)[0].pairs.sets
    index = pairs.split.validation[0]
    assert f"<h3>synthetic/{pairs.source.names[index]}</h3>" in page
    examples, (first, second) = examples_of(page), pairs.source[index]
    assert [label for label, _ in examples][:5] == ["infrared", "visible", "average", "maximum", "found network"]
    assert first.shape == examples[0][1].shape
    first, second = unit_range(first), unit_range(second)
    fused = [first, second, (first + second) / 2, np.maximum(first, second), load(config.run, "cpu")(first, second)]
    if name == "verified":
        losses = load_genotype(config.run).provenance["verification"]["losses"]
        others = [other for other in losses if other.startswith("random") and len(losses[other]) == 2]
        best = min(others, key=lambda other: losses[other][-1])
        assert examples[5][0] == f"best random network, {best}"
        fused.append(load(config.run / "verification" / "round-2" / best, "cpu")(first, second))
    assert len(examples) % len(fused) == 0
    for (_, shown), expected in zip(examples, fused, strict=False):
        assert np.abs(shown / 255 - expected).mean() < 0.01


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        (
            {"proposed-1": [0.3, 0.1], "random-0": [0.4, 0.15], "proposed-0": [0.5], "random-1": [0.5]},
            "The best proposed network, proposed-1, ends with the loss 0.1000 and the best random one, random-0, with"
            " 0.1500: the search is ahead by 0.0500, and beside the 2 random networks of the same cost"
            " proposed-1 has rank 2 of 3.",
        ),
        (
            {"random-0": [0.4, 0.1], "random-1": [0.5, 0.2], "proposed-1": [0.3, 0.3], "random-2": [0.01]},
            "the search is behind by 0.2000, and beside the 3 random networks of the same cost proposed-1",
        ),
        ({"proposed-1": [0.1], "random-0": [0.1]}, "the search is level, and beside the 1 random"),
        ({"proposed-1": [0.1], "plain-0": [0.05]}, "compare proposed-1 with. The plain network has 0.0500."),
        ({"proposed-1": [0.1], "random-0": [float("inf")]}, "There is no random network of the same cost"),
        ({"proposed-0": [0.1], "proposed-1": [0.2]}, "The result is proposed-1."),
    ],
)
def test_best_is_compared_with_best(finished, losses, sentence):
    config = finished("verified")
    genotype = load_genotype(config.run)
    verified = {**genotype.provenance["verification"], "network": "proposed-1", "losses": losses}
    verified["rank_among_random"] = 2
    save_genotype(
        replace(genotype, provenance={**genotype.provenance, "verification": verified}), config.run / "genotype.yaml"
    )
    page = words_of(report_page(config))
    save_genotype(genotype, config.run / "genotype.yaml")
    assert sentence in page


def test_the_table_of_a_verification_is_that_of_its_file(finished):
    config = finished("verified")
    words = words_of(page_of(config))
    with (config.run / "verification.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 1 + 6
    for name, operators, *costs in rows:
        assert " ".join([name, *filter(None, costs), operators]) in words


def test_examples_have_the_colour_of_the_sources(tmp_path):
    noise = np.random.default_rng(0)
    for folder, shape in (("ir", (20, 24)), ("vis", (20, 24, 3))):
        for index in range(6):
            write_pixels(tmp_path / "pairs" / folder / f"{index}.png", noise.integers(0, 256, shape, dtype=np.uint8))
    config = tiny_search(tmp_path / "run", search=FAST, data={"root": str(tmp_path / "pairs")})
    search(config)
    shown = dict(examples_of(page_of(config))[:5])
    assert shown["infrared"].ndim == 2
    chroma = {name: image[..., 0].astype(float) - image[..., 2] for name, image in shown.items() if image.ndim == 3}
    assert list(chroma) == ["visible", "average", "maximum", "found network"]
    assert np.corrcoef(chroma["visible"].flat, chroma["found network"].flat)[0, 1] > 0.5  # clipped


def test_texts_are_escaped(tmp_path):
    sources = ("x<b>", "y&'\"")
    noise = np.random.default_rng(0)
    for folder in sources:
        for index in range(6):
            pixels = noise.integers(0, 256, (20, 24), dtype=np.uint8)
            write_pixels(tmp_path / "<i>pairs" / folder / f"<u>{index}.png", pixels)
    config = tiny_search(
        tmp_path / "<s>run", task="own", sources=sources, search=FAST, data={"root": str(tmp_path / "<i>pairs")}
    )
    search(config)
    page = page_of(config)
    assert not re.search("<[bius]>(?!</)", page.replace("<b>the network</b>", ""))
    assert Structure(page).title == "Search <s>run"
    words = words_of(page)
    for text in (f"own: {sources[0]} and {sources[1]}", str(tmp_path / "<i>pairs"), "<i>pairs/<u>"):
        assert text in words


def test_warnings_of_the_guards_are_told(tiny):
    config = tiny(
        space={"operators": ["spatial_attention_k3", "spatial_attention_k5"]}, search={"steps": 12, "warmup": 1}
    )
    (warning, *_) = search(config).genotype.provenance["warnings"]
    assert warning in words_of(page_of(config))


def test_a_budget_is_told(tiny):
    config = tiny(search=FAST, cost={"budget": "1 Mparams"})
    budget = search(config).budget
    assert f"{budget}; it is met" in words_of(page_of(config))


def test_what_is_missing_is_left_out_with_a_line(tiny, tmp_path):
    for folder in ("ir", "vis"):
        for index in range(6):
            write_pixels(tmp_path / "pairs" / folder / f"{index}.png", np.full((20, 24), 40 * index, np.uint8))
    config = tiny(search=FAST, data={"root": str(tmp_path / "pairs")})
    search(config)
    (config.run / "pictures" / "network.png").unlink()
    (tmp_path / "pairs" / "ir" / "3.png").unlink()
    page = report_page(config)
    assert "network.png is not in the run folder." in words_of(page)
    assert re.search(r"There are none: .*3", words_of(page))
    assert examples_of(page) == []
    assert 'alt="probabilities"' in page


@pytest.mark.parametrize("name", ["one seed", "several seeds", "verified"])
def test_a_search_that_has_ended_is_resumed_to_the_same_report(finished, name):
    config = finished(name)
    before = untimed(config.run / "report.html")
    search(config, resume=True)
    assert untimed(config.run / "report.html") == before


def test_the_report_belongs_to_the_run_and_not_to_each_of_its_seeds(finished):
    run = finished("several seeds").run
    assert '"report.html"' in (run / ".written").read_text(encoding="utf-8").splitlines()
    assert list(run.rglob("report.html")) == [run / "report.html"]
