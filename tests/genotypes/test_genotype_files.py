"""Genotype files: round trips, the zoo, run folders, and what a broken file is told."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from timfuse.genotypes import TASKS, load_genotype, save_genotype, zoo_names
from timfuse.runtime.errors import UserError

from ..random_genotypes import genotypes

GOOD = """\
schema: 1
name: mine
task: mri-ct
network: fusion
channels: 16
cells:
  - kind: successive
    operators: [residual_k3_d1]
"""


@settings(max_examples=60, deadline=None)
@given(genotype=genotypes())
def test_a_saved_genotype_comes_back_exactly(genotype):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "genotype.yaml"
        save_genotype(genotype, path)
        again = load_genotype(folder)
        assert again == genotype
        first = path.read_bytes()
        save_genotype(again, path)
        assert path.read_bytes() == first


def test_a_task_of_the_users_own(tmp_path):
    path = tmp_path / "genotype.yaml"
    own = "task: xray-neutron\nsources: [X-ray, neutron]\ncolour: first\n"
    path.write_text(GOOD.replace("task: mri-ct\n", own))
    genotype = load_genotype(path)
    assert (genotype.task, genotype.sources, genotype.colour) == ("xray-neutron", ("X-ray", "neutron"), "first")
    save_genotype(genotype, path)
    assert own in path.read_text()


def test_a_known_task_is_written_without_sources_and_colour(tmp_path):
    path = tmp_path / "genotype.yaml"
    path.write_text(GOOD.replace("task: mri-ct\n", "task: mri-ct\nsources: null\n"))
    save_genotype(load_genotype(path), path)
    assert not {"sources:", "colour:"} & set(path.read_text().split())


def test_operators_are_written_on_one_line(tmp_path):
    save_genotype(load_genotype("tim"), tmp_path / "genotype.yaml")
    text = (tmp_path / "genotype.yaml").read_text()
    assert text.startswith("schema: 1\nname: tim\n")
    assert "operators: [residual_k3_d1, dilated_k3_d2]" in text


def test_the_zoo_holds_the_published_genotypes():
    published = ("tim", "tim_ivif", "tim_light", "tim_mri_ct", "tim_mri_pet", "tim_mri_spect")
    assert zoo_names() == ("detfusion", "ivif", "ivif-fast", "ivif-nano", *list(TASKS)[1:], *published)
    for name in published:
        genotype = load_genotype(name)
        assert (genotype.name, genotype.channels) == (name, 48)
        assert "2305.15862" in genotype.provenance["source"]


def test_the_lists_of_the_refine_networks_run_on_the_other_source():
    cells = load_genotype("tim_ivif").cells
    assert [cell.source for cell in cells] == ["first", "first", "second", "second"]
    assert cells[0].operators == cells[1].operators == ("channel_attention_k3", "spatial_attention_k3")
    assert cells[2].operators == cells[3].operators == ("spatial_attention_k3", "dilated_k3_d2")


def test_a_name_from_the_zoo_goes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tim").write_text(GOOD)
    assert load_genotype("tim").name == "tim"
    assert load_genotype("./tim").name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("schema: 1\n", "", "schema must be 1, not None; start the file with 'schema: 1'"),
        ("schema: 1", "schema: 2", "written by a newer timfuse (this one reads 1); upgrade timfuse"),
        ("schema: 1", "schema: one", "schema must be 1, not 'one'"),
        ("channels:", "chanels:", "unknown key chanels (did you mean 'channels'?)"),
        ("    operators:", "    operator:", "unknown key cells[0].operator (did you mean 'operators'?)"),
        ("task: mri-ct\n", "", "the key task is missing"),
        ("    operators: [residual_k3_d1]\n", "", "the key cells[0].operators is missing"),
        ("task: mri-ct", "task: xray-neutron", "task must be one of infrared-visible"),
        ("task: mri-ct", "task: xray-neutron\nsources: xray", "sources must be a list"),
        ("task: mri-ct", "task: xray-neutron\nsources: [1, 2]", "sources must be two texts"),
        ("task: mri-ct", "task: mri-ct\nsources: [MRI, CT]", "sources must be left out for mri-ct"),
        ("task: mri-ct", "task: mri-ct\ncolour: [second]", "colour must be one of first, second, both"),
        ("task: mri-ct", "task: mri-ct\ncolor: second", "unknown key color (did you mean 'colour'?)"),
        ("[residual_k3_d1]", "residual_k3_d1", "cells[0].operators must be a list"),
        ("[residual_k3_d1]", "[residual_k3_d1, 3]", "cells[0].operators[1]: 3 is not the id"),
        ("channels: 16", "channels: sixteen", "channels must be an even whole number"),
        ("channels: 16", "channels: 16\nchannels: 32", ":6: "),
        ("task: mri-ct", "task: [mri-ct", ":4: "),
        ("name: mine", "name: !!python/object:os.system x", ":2: "),
        ("name: mine", "name: &a mine", ":2: "),
        (GOOD, "- 1", "a genotype must be a mapping"),
        (GOOD, "", "a genotype must be a mapping"),
        (GOOD, "[" * 5000, "nested too deeply"),
        ("[residual_k3_d1]", f"[{', '.join(['identity'] * 1001)}]", "cells must hold at most 1000 operators, not 1001"),
    ],
)
def test_a_broken_file_is_told_where(tmp_path, old, new, told):
    path = tmp_path / "broken.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError) as error:
        load_genotype(path)
    message = str(error.value)
    assert str(path) in message
    assert told in message
    assert "\n" not in message


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "genotype.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        load_genotype(tmp_path)


def test_a_folder_without_a_genotype(tmp_path):
    with pytest.raises(UserError, match=r"has no genotype\.yaml"):
        load_genotype(tmp_path)


@pytest.mark.parametrize("name", ["tim_ligth", "\0", "x" * 5000])
def test_an_unknown_name(name):
    with pytest.raises(UserError) as error:
        load_genotype(name)
    assert "\n" not in str(error.value)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(UserError, match="did you mean 'tim_light'") as error:
        load_genotype("tim_ligth")
    assert all(name in str(error.value) for name in zoo_names())


def test_an_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_genotype(load_genotype("tim"), tmp_path / "file" / "genotype.yaml")
