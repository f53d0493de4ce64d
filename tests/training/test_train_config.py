import pytest

from timfuse.genotypes import TASKS
from timfuse.objectives import FusionLoss
from timfuse.runtime.config import load_config
from timfuse.runtime.errors import UserError
from timfuse.training import TrainConfig


def load(*settings):
    return load_config(TrainConfig, None, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.stepz=3"], "unknown key train.stepz (--set train.stepz=3); did you mean train.steps?"),
        (["train.steps=0"], "train.steps = 0 must be greater than or equal to 1"),
        (["train.steps=100", "train.warmup=100"], "must be longer than the warm-up: warmup 100 >= steps 100"),
        (["train.ema=1"], "train.ema = 1 must be less than 1"),
        (["train.precision=float16"], "train.precision = \"float16\" must be 'auto' or 'float32'"),
        (["train.learning_rate=0"], "train.learning_rate = 0 must be greater than 0"),
        (["data.root=[]"], "data.root = []"),
        (["data.root=[a, b]", "data.shares=[1]"], "must have one of data.shares for each folder: 1 for 2"),
        (["data.shares=[1, 2]"], "must have one of data.shares for each folder: 2 for 1"),
        (["data.root=[a, b]", "data.shares=[1, 0]"], "data.shares.1 = 0 must be greater than 0"),
        (["data.root=[a, a]"], "must name each folder of data.root once"),
        (["data.crop=8"], "data.crop = 8 must be greater than or equal to 16"),
        (["data.synthetic_pairs=1"], "data.synthetic_pairs = 1 must be greater than or equal to 3"),
        (["loss.beauty=1"], "unknown key loss.beauty (--set loss.beauty=1); known keys here: "),
        (["task=mri"], "unknown task 'mri' (did you mean 'mri-ct'?): use infrared-visible, mri-ct, "),
        (["sources=[a, b]"], "must have a task for `sources`; name it with task=NAME"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_key(settings, message):
    with pytest.raises(UserError) as caught:
        load(*settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_folder_several_or_none():
    assert load().data.roots == (None,)
    assert [str(root) for root in load("data.root=a/b").data.roots] == ["a/b"]
    assert [str(root) for root in load("data.root=[a, b]", "data.shares=[1, 0.5]").data.roots] == ["a", "b"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_trained(task):
    assert load(f"task={task}").task == task


def test_a_task_of_ones_own_has_sources():
    config = load("task=radar-optical", "sources=[radar, optical]")
    assert (config.task, config.sources) == ("radar-optical", ("radar", "optical"))


def test_the_loss_is_that_of_the_task_unless_one_is_given():
    assert load().loss is None
    assert FusionLoss(**load("loss={}").loss.model_dump()) == FusionLoss()
