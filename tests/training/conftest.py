"""What the tests of the training share: small networks, and trainings that have run to their end."""

import pytest

from timfuse.training import train

from ..tiny_runs import tiny_training, write_networks


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """The folder of the genotypes of small networks, fusion.yaml and refine.yaml."""
    return write_networks(tmp_path_factory.mktemp("networks"))


@pytest.fixture
def tiny(tmp_path, networks):
    """A function that makes the config of a tiny training; keyword arguments change keys of its sections."""
    return lambda run="run", **sections: tiny_training(tmp_path / run, networks, **sections)


@pytest.fixture(scope="session")
def finished(networks, tmp_path_factory):
    """The config and the result of one training, which others start from and look at."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    config = tiny_training(run, networks, seed=7, train={"steps": 25, "validate_every": 10})
    return config, train(config)


@pytest.fixture(scope="session")
def refining(networks, finished):
    """What makes a config that of a refine network behind the finished training."""
    return {"genotype": str(networks / "refine.yaml"), "first_stage": str(finished[0].run)}


@pytest.fixture(scope="session")
def refined(networks, refining, tmp_path_factory):
    """The config and the result of one training of a refine network."""
    config = tiny_training(tmp_path_factory.mktemp("runs") / "refined", networks, **refining)
    return config, train(config)
