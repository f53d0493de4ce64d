import pytest

from timfuse.genotypes import TASKS
from timfuse.meta_init import AdaptConfig, MetaInitConfig
from timfuse.meta_init.meta_init_config import LEARN_RATES
from timfuse.objectives import FusionLoss, training_loss
from timfuse.runtime.config import config_to_yaml, load_config
from timfuse.runtime.errors import UserError


def load(*settings):
    return load_config(MetaInitConfig, None, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["meta.stepz=3"], "unknown key meta.stepz (--set meta.stepz=3); did you mean meta.steps?"),
        (["meta.steps=0"], "meta.steps = 0 must be greater than or equal to 1"),
        (["meta.steps=20", "meta.warmup=20"], "must have parts longer than the warm-up: warmup 20 >= 20 steps"),
        (["meta.pretrain=10", "meta.warmup=10"], "must have parts longer than the warm-up: warmup 10 >= 10 steps"),
        (
            ["meta.algorithm=momaml"],
            "meta.algorithm = \"momaml\" must be 'pooled', 'maml', 'fomaml', 'reptile', 'anil' or 'imaml'",
        ),
        (["inner.optimizer=lion"], "inner.optimizer = \"lion\" must be 'sgd', 'adam' or 'adamw'"),
        (["inner.learning_rate=0"], "inner.learning_rate = 0 must be greater than 0"),
        (["inner.strength=0"], "inner.strength = 0 must be greater than 0"),
        (["inner.steps=0"], "inner.steps = 0 must be greater than or equal to 1"),
        (
            ["inner.optimizer=adamw", "meta.algorithm=maml"],
            "maml cannot differentiate inner.optimizer = adamw; use sgd or adam",
        ),
        (["inner.optimizer=adamw", "meta.algorithm=anil"], "anil cannot differentiate inner.optimizer = adamw"),
        (["data.support=0"], "data.support = 0 must be greater than or equal to 1"),
        (["data.crop=8"], "data.crop = 8 must be greater than or equal to"),
        (["tasks.mri-tc={}"], "unknown task 'mri-tc' (did you mean 'mri-ct'?): use infrared-visible, mri-ct, "),
        (["tasks.mri-ct.weight=-1"], "tasks.mri-ct.weight = -1 must be greater than or equal to 0"),
        (["tasks.mri-ct.root=[]"], "tasks.mri-ct.root = []"),
        (["tasks.mri-ct.wait=1"], "unknown key tasks.mri-ct.wait"),
        (["tasks.mri-ct.loss={ssim: 0, gradient: 0, intensity: 0}"], "must have a weight above 0"),
        (["tasks.mine.sources=[a]"], "tasks.mine.sources"),
        (
            ["tasks.a/b.sources=[a, b]"],
            "a task's name must be of up to 40 letters, digits, '-', '_' and '.', not 'a/b'",
        ),
        (["tasks.mine.sources=[a, b]", "tasks.mine.colour=third"], "tasks.mine.colour = \"third\" must be 'first'"),
        ([f"tasks.{name}.weight=0" for name in TASKS], "must have a task with a weight above 0"),
        ([f"tasks.{name}=null" for name in TASKS], "must have a task with a weight above 0"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_key(settings, message):
    with pytest.raises(UserError) as caught:
        load(*settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_by_default_every_task_is_trained_on():
    assert {name: task.weight for name, task in load().used_tasks.items()} == dict.fromkeys(TASKS, 1.0)


def test_null_leaves_a_task_out_and_a_weight_of_zero_does_not():
    used = load(
        "tasks={mri-spect: {}, mri-pet: {}, mri-ct: {}}", "tasks.mri-pet=null", "tasks.mri-ct.weight=0"
    ).used_tasks
    assert {name: task.weight for name, task in used.items()} == {"mri-spect": 1, "mri-ct": 0}


@pytest.mark.parametrize("algorithm", ["fomaml", "reptile", "imaml"])
def test_any_inner_optimiser_where_nothing_is_differentiated_twice(algorithm):
    assert load("inner.optimizer=adamw", f"meta.algorithm={algorithm}").inner.optimizer == "adamw"


def test_rates_are_learnt_where_the_gradient_is_known():
    assert LEARN_RATES == ("maml", "fomaml", "anil")


def test_the_loss_of_a_task_is_its_own_unless_one_is_given():
    def loss(name, *settings):
        config = load("data.synthetic_pairs=4", *settings)
        return config.data.open_task(name, config.used_tasks[name], 0).loss

    assert loss("mri-ct") == training_loss("mri-ct")
    assert loss("mri-ct", "tasks.mri-ct.loss.exposed=2") == FusionLoss(exposed=2)


def test_a_loss_whose_windows_are_larger_than_the_crops():
    config = load("data.synthetic_pairs=4", "data.crop=16", "tasks.mri-ct.loss.fidelity=1")
    with pytest.raises(UserError, match=r"data\.crop = 16 is too small for this loss .*; choose a larger one"):
        config.data.open_task("mri-ct", config.used_tasks["mri-ct"], 0)


def test_a_config_comes_back_from_yaml(tmp_path):
    config = load("tasks.mine={sources: [a, b], colour: first, root: [x, y]}", "tasks.mri-ct=null")
    (tmp_path / "config.yaml").write_text(config_to_yaml(config), encoding="utf-8")
    assert load_config(MetaInitConfig, tmp_path / "config.yaml") == config


def test_an_adaptation_has_a_start_and_a_task_by_default():
    config = load_config(AdaptConfig, None, [])
    assert (config.init, config.task) == (None, "infrared-visible")
    assert (config.data.roots, config.sources, config.colour, config.loss) == ((None,), None, None, None)
