"""The initialisation that comes with timfuse adapts, and says where it comes from."""

import re

import pytest

from timfuse.genotypes import load_genotype
from timfuse.meta_init import AdaptConfig, adapt_to_task, shipped_initialisations
from timfuse.meta_init.few_shot import SHIPPED, find_start
from timfuse.runtime.errors import UserError

NAMES = shipped_initialisations()


def test_there_is_one():
    assert "all-tasks" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_its_card_names_data_and_command_and_no_path_of_a_machine(name):
    card = (SHIPPED / name / "README.md").read_text(encoding="utf-8")
    assert "timfuse meta-init --config configs/meta-init.yaml" in card
    assert "roadscene" in card.lower()
    for file in ("config.yaml", "genotype.yaml", "README.md"):
        assert not re.search(r"[ :=]/\w", (SHIPPED / name / file).read_text(encoding="utf-8"))
    assert load_genotype(SHIPPED / name).provenance["algorithm"] == "pooled"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["mri-pet", "multi-exposure", "multi-focus"])
def test_it_leads_where_random_weights_do_not_get_in_as_many_steps(name, task, tmp_path):
    done = adapt_to_task(AdaptConfig(run=tmp_path / "run", init=name, task=task, steps=20))
    assert done.curve[done.kept] < min(done.fresh.values())


def test_an_unknown_name_is_one_line_with_the_nearest():
    with pytest.raises(UserError) as caught:
        find_start("all-task")
    assert "did you mean 'all-tasks'?" in str(caught.value)
    assert "\n" not in str(caught.value)
