"""Every flag is another way to write a setting, in every command that runs a config."""

import pytest

COMMANDS = ("search", "train", "meta-init", "adapt", "finetune", "tune")
STEPS = {
    "search": "search.steps",
    "train": "train.steps",
    "meta-init": "meta.steps",
    "adapt": "steps",
    "finetune": "train.steps",
    "tune": "search.search.steps",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_words_of_every_command(refused, command):
    line = refused(command, "--steps", "0")
    assert line.startswith(f"{STEPS[command]} = 0 must be greater than or equal to 1")
    assert line.startswith(refused(command, "--set", f"{STEPS[command]}=0"))
    assert refused(command, "--data", "gone").startswith("the data folder gone")
    assert "no config file gone.yaml" in refused(command, "--config", "gone.yaml")
    assert "unknown key stepz (--set stepz=1)" in refused(command, "-s", "stepz=1")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "tune"])
def test_the_run_folder_of_a_command(refused, command):
    few = [] if command == "adapt" else ["--set", "data.synthetic_pairs=12"]
    line = refused(command, "--run", "tiny.yaml", "--set", "device=cpu", *few)
    assert line.startswith("cannot write tiny.yaml: a part of this path is a file, not a folder")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "meta-init"])
def test_the_task_of_a_command(refused, command):
    assert "unknown task 'mri-tc' (did you mean 'mri-ct'?)" in refused(command, "--task", "mri-tc")


def test_flags_of_a_search(refused):
    assert refused("search", "--seeds", "0").startswith("seeds = 0 must be greater than or equal to 1")
    assert refused("search", "--budget", "many").startswith('cost.budget = "many" must be')
    line = refused("finetune", "--downstream", "detecton")
    assert line.startswith("downstream.kind = \"detecton\" must be 'detection' or 'segmentation'")
    assert refused("adapt", "--pairs", "-1").startswith("data.pairs = -1 must be")
    assert refused("adapt", "nowhere").startswith("no network 'nowhere'")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "meta-init"])
def test_several_folders_are_a_list(refused, command):
    line = refused(command, "--data", "gone", "--data", "gone")
    assert "must name each folder of data.root once" in line


def test_what_both_a_flag_and_a_setting_say(refused):
    assert "the data folder by-flag" in refused("train", "--data", "by-flag", "--set", "data.root=by-setting")
