from dataclasses import replace

import pytest
from pydantic import ValidationError

from timfuse.bilevel import ESTIMATORS
from timfuse.genotypes import load_genotype
from timfuse.objectives.loss_section import LossSection
from timfuse.runtime.config import load_config
from timfuse.runtime.errors import UserError
from timfuse.search import SearchConfig
from timfuse.search.search_config import SearchSection
from timfuse.search.space_section import PRESETS


def load(*settings):
    return load_config(SearchConfig, None, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["cost.front=[10ms, 2GFLOPs]"], "must have one unit in cost.front: 10ms, 2GFLOPs"),
        (["cost.front=10ms,10ms"], "must have each budget once in cost.front: 10ms, 10ms"),
        (["cost.front=[10]"], "must be a number above 0 with its unit, like 10ms, 5GFLOPs or 50kparams"),
        (["cost.front=10ms", "seeds=2"], "must have cost.front empty or seeds = 1: a front is that of one search"),
        (
            ["space.preset=pyramid", "space.channels=8"],
            "must have a list of numbers in space.channels, one for each level, or preset: tim",
        ),
        (["space.preset=tim", "space.channels=[8, 12]"], "must have preset: pyramid for a list of numbers in"),
        (["space.preset=tim", "space.channels=[[0, 8], [8, 16]]"], "must have preset: pyramid for a list of numbers"),
        (["space.preset=tim", "space.levels=[0, 1]"], "must have preset: pyramid for a list of numbers in"),
        (["space.preset=tmi"], "space.preset = \"tmi\" must be 'pyramid', 'tim' or 'tim-refine'"),
        (["space.preset=tim-refine", "space.channels=[8, 12]"], "must have preset: pyramid for a list of numbers in"),
        (["space.preset=tim", "space.sources=[first, second]"], "must have preset: tim-refine for space.sources or"),
        (["space.merge=gated"], "must have preset: tim-refine for space.sources or space.merge"),
        (["space.preset=tim-refine", "space.merge=sum"], "space.merge = \"sum\" must be 'gated' or 'concat'"),
        (
            ["space.preset=tim-refine", "space.cells=[successive, successive]"],
            "must have one of space.sources for each of the 2 cells of a refine network",
        ),
        *(
            (
                ["space.preset=tim-refine", f"space.sources=[{', '.join(sources)}]"],
                "must have in space.sources all cells of the first branch before those of the second, and at least one"
                f" of each: {', '.join(sources)}",
            )
            for sources in (("first", "second", "first", "second"), ("first",) * 4)
        ),
        (["space.preset=tim-refine", "space.stem=half"], "must have space.stem = full in a refine network"),
        (["space.preset=tim-refine", "space.head=envelope"], "must have space.head = direct in a refine network"),
        (["space.levels=[0, 1]"], "must have one of space.levels for each of the 4 cells of a pyramid network"),
        (["space.channels=[8, 12]", "space.levels=[0]"], "must have one of space.levels for each of the 2 cells"),
        (["space.channels=[8]", "space.levels=[1]"], "must have space.levels below the number of space.channels: 1"),
        (
            ["space.channels=[[8, 4], [4, 8]]"],
            "must have numbers in rising order to choose from at a level, not [8, 4]",
        ),
        (
            ["space.channels=[[4, 4], [4, 8]]"],
            "must have numbers in rising order to choose from at a level, not [4, 4]",
        ),
        (["space.channels=[[0, 8], [0, 8]]"], "0 only as the first to choose from at the finest level"),
        (["space.channels=[[0, 8]]"], "0 only as the first to choose from at the finest level"),
        (["space.channels=[0, 8]"], "0 only as the first to choose from at the finest level"),
        (["space.channels=[[0], [8]]"], "0 only as the first to choose from at the finest level"),
        (["space.channels=[[], [8]]"], "must be an even number from 2 on"),
        (["space.channels=[[8, 12, 16], [4, 8]]"], "equally many numbers to choose from for every level"),
        (["space.channels=[[8], [4]]"], "must have at least two numbers to choose from at a level"),
        (["space.channels=[8, [8, 16]]"], "must have one number for every level, or equally many numbers to choose"),
        (["space.channels=[[4, 7], [4, 8]]"], "must be an even number from 2 on, or a list of 1 to 6 of them"),
        (["space.norm=batch"], "must have space.norm = none where widths are searched, not batch; or give one number"),
        (["space.cells=[stage, stage, stage, multi_scale]"], "must have stages or successive cells where widths are"),
        (
            ["space.operators=[identity, dense_k3_d1]"],
            "must leave out space.operators dense_k3_d1, which has no narrow",
        ),
        (
            ["space.operators=[plain_k3, spatial_attention_k3]"],
            "must leave out space.operators spatial_attention_k3, which has no narrower part; or give one number",
        ),
        (
            ["space.channels=[[0, 8], [8, 16]]", "space.cells=[stage]", "space.levels=[0]"],
            "must have a cell at a coarser level where the finest level may have 0 of space.channels",
        ),
        (["space.head=direct"], "must have space.head = bands or sources in a pyramid network"),
        (
            ["space.preset=tim", "space.head=bands"],
            "must have space.head = bands or sources in a pyramid network alone",
        ),
        (["space.channels=[8, 7]", "space.levels=[0, 1]"], "must be an even number from 2 on, or a list of 1 to 6 of"),
        (["space.channels=[8]", "space.stem=full"], "must have space.stem = half in a pyramid network"),
        (["search.stepz=3"], "unknown key search.stepz (--set search.stepz=3); did you mean search.steps?"),
        (["serach.steps=3"], "unknown key serach (--set serach.steps=3); did you mean search?"),
        (["search.steps=2.5"], "search.steps = 2.5 must be an integer"),
        (["search.steps=many"], 'search.steps = "many" must be an integer'),
        (["search.steps=200", "search.warmup=200"], "must leave steps for the architecture: warmup 200 >= steps 200"),
        (["search.estimator=newton"], "search.estimator = \"newton\" must be 'first_order', 'gauss_newton'"),
        (["search.weight_learning_rate=0"], "search.weight_learning_rate = 0 must be greater than 0"),
        (["search.weight_learning_rate=.inf"], "search.weight_learning_rate = Infinity must be a finite number"),
        (["search.temperature=[1, 0]"], "search.temperature.1 = 0 must be greater than 0"),
        (["search.inner_loss.intensity=.nan"], "search.inner_loss.intensity = NaN must be a finite number"),
        (
            [f"search.outer_loss.{term}=0" for term in LossSection.model_fields],
            "must have a weight above 0: intensity, gradient",
        ),
        (["cost.weight=.inf"], "cost.weight = Infinity must be a finite number"),
        (["cost.budget=5"], "cost.budget = 5 must be a number above 0 with its unit, like 10ms, 5GFLOPs or 50kparams"),
        (["cost.budget=10 parsecs"], 'cost.budget = "10 parsecs" must be a number above 0 with its unit, like 10ms'),
        (["cost.budget=[1ms]"], 'cost.budget = ["1ms"] must be a number above 0 with its unit'),
        (["latency.budget=5"], "unknown key latency (--set latency.budget=5)"),
        (["space.channels=3"], "space.channels = 3 must be an even number from 2 on"),
        (["space.cells=[]"], "space.cells = []"),
        (["space.cells=[sucessive]"], "space.cells.0 = \"sucessive\" must be 'stage', 'successive', 'multi_scale' or"),
        (["space.operators=[identity]"], 'space.operators = ["identity"]'),
        (["space.operators=[identity, residual_k3]"], "space.operators[1]: unknown operator 'residual_k3'"),
        (["space.operators=[identity, identity]"], "space.operators[1]: identity is listed twice; remove one"),
        (["data.crop=8"], "data.crop = 8 must be greater than or equal to 16"),
        (["data.architecture=1"], "data.architecture = 1 must be less than 1"),
        (["downstream.kind=fusion"], "downstream.kind = \"fusion\" must be 'detection' or 'segmentation'"),
        (
            ["downstream.kind=detection", "data.batch_size=1", "data.crop=32"],
            "must have data.batch_size above 1 or data.crop above 32 for a task network to learn",
        ),
        (["data.synthetic_pairs=2"], "data.synthetic_pairs = 2 must be greater than or equal to 3"),
        (["seed=-1"], "seed = -1 must be greater than or equal to 0"),
        (["task=mri-tc"], "unknown task 'mri-tc' (did you mean 'mri-ct'?)"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_key(settings, message):
    with pytest.raises(UserError) as caught:
        load(*settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("estimator", "option", "message"),
    [
        (
            "gauss_newton",
            "clips=1",
            "search.estimator_options.clips: gauss_newton has no such setting; it has epsilon, clip",
        ),
        ("first_order", "clip=1", "search.estimator_options.clip: first_order has no such setting; it has none"),
        ("unrolled", "optimizer=1", "search.estimator_options.optimizer: unrolled has no such setting; it has steps"),
        ("unrolled", "steps=1.5", "search.estimator_options.steps = 1.5 must be a whole number from 0 on"),
        ("neumann", "terms=.inf", "search.estimator_options.terms = inf must be a whole number from 0 on"),
        ("neumann", "learning_rate=-1", "search.estimator_options.learning_rate = -1 must be a number from 0 on"),
        ("gauss_newton", "clip=-1", "search.estimator_options.clip = -1 must be a number from 0 on"),
        ("gauss_newton", "epsilon=.nan", "search.estimator_options.epsilon = nan must be a number from 0 on"),
        ("gauss_newton", "clip=true", "search.estimator_options.clip = true must be"),
        ("gauss_newton", "clip=much", 'search.estimator_options.clip = "much" must be'),
    ],
)
def test_estimator_options(estimator, option, message):
    with pytest.raises(UserError) as caught:
        load(f"search.estimator={estimator}", f"search.estimator_options.{option}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_an_estimator_has():
    gauss_newton = load("search.estimator=gauss_newton", "search.estimator_options={clip: .inf, epsilon: 0}")
    assert gauss_newton.search.estimator_options["epsilon"] == 0
    load("search.estimator=conjugate_gradient", "search.estimator_options={iterations: 3, damping: 1}")


def test_keys_that_are_null_are_those_of_the_preset():
    assert load().space.search_space == PRESETS["pyramid"]
    assert load("space.preset=tim").space.search_space == PRESETS["tim"]
    assert load("space.preset=tim-refine", "space.merge=concat").space.search_space == replace(
        PRESETS["tim-refine"], merge="concat"
    )
    assert load("space.preset=tim", "space.channels=8").space.search_space == replace(PRESETS["tim"], channels=8)
    assert load("space.steps=2", "space.head=sources").space.search_space == replace(
        PRESETS["pyramid"], steps=2, head="sources"
    )


@pytest.mark.parametrize("name", ["tim_ivif", "tim_mri_ct", "tim_mri_pet", "tim_mri_spect"])
def test_the_second_stages_that_tim_found_are_in_its_space(name):
    found = load_genotype(name)
    space = load("space.preset=tim-refine", f"space.channels={found.channels}", f"space.merge={found.merge}")
    space = space.space.search_space
    choices = space.choices({"channels": found.channels, "operators": [cell.operators for cell in found.cells]})
    described = space.genotype(choices)
    assert replace(described, name=found.name, task=found.task, provenance=found.provenance) == found


def test_a_pyramid_with_channels_of_its_own_has_a_stage_for_each_level():
    for channels in ("[8, 12]", "[[0, 8], [8, 16]]"):
        space = load(f"space.channels={channels}").space.search_space
        assert (space.cells, space.levels) == (("stage", "stage"), (0, 1))
    space = load("space.channels=[8, 12]", "space.cells=[multi_scale]", "space.levels=[1]", "space.norm=batch")
    assert (space.space.search_space.cells, space.space.search_space.norm) == (("multi_scale",), "batch")


@pytest.mark.parametrize("channels", ["[[0, 8], [8, 16]]", "[[2, 4, 6], [4, 6, 8]]", "[[0, 2], [2, 4]]"])
def test_widths_to_choose_from(channels):
    space = load(f"space.channels={channels}").space.search_space
    assert space.width_options == space.channels


def test_a_downstream_task_is_asked_for_by_its_kind():
    assert load().downstream is None
    assert load("downstream.kind=detection").downstream.network == "compact"
    assert load("downstream.kind=segmentation").downstream.network == "segformer-tiny"
    assert load("downstream.kind=detection", "downstream=null").downstream is None


def test_every_estimator_can_be_chosen():
    assert set(ESTIMATORS) == set(SearchSection.model_fields["estimator"].annotation.__args__)


def test_a_config_made_in_python_is_checked_too():
    with pytest.raises(UserError, match="no such setting"):
        SearchSection(estimator_options={"x": 1})
    with pytest.raises(ValidationError, match="warmup"):
        SearchSection(steps=10, warmup=10)
