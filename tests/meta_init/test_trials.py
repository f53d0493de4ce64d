import copy

import pytest
import torch

from timfuse.genotypes import load_genotype
from timfuse.meta_init.episodes import validation_query
from timfuse.meta_init.rates import adaptation_of, adapting_layers
from timfuse.meta_init.trials import adapt_and_score, adaptation_curve, make_trials, pair_loss
from timfuse.operators import build_network
from timfuse.runtime.progress import Progress

CPU = torch.device("cpu")


@pytest.fixture
def config(tiny):
    return tiny(inner={"learning_rate": 1e-2})


def make(config, tasks, seed=0):
    data = config.data
    sizes = {"support": data.support, "query": data.query, "crop": data.crop}
    return make_trials(tasks, **sizes, steps=4, episodes=2, seed=seed, device=CPU)


@pytest.fixture
def tasks(config):
    return [config.data.open_task(name, section, config.seed) for name, section in config.used_tasks.items()]


@pytest.fixture
def trials(config, tasks):
    return make(config, tasks)


@pytest.fixture
def network(genotype):
    torch.manual_seed(0)
    network = build_network(load_genotype(genotype))
    with torch.no_grad():
        network(*torch.rand(2, 3, 1, 20, 20))  # gives batch normalisation statistics that are not the first ones
    return network


@pytest.fixture
def adaptation(network, config):
    layers = adapting_layers(network, None)
    return adaptation_of(layers, torch.full((len(layers),), config.inner.learning_rate), config.inner.optimizer)


def everything(trial):
    for episode in trial.episodes:
        for batch in (*episode.support, episode.query):
            yield from batch[:2]


def test_trials_are_the_same_throughout(config, tasks, trials):
    again = make(config, tasks[::-1])[::-1]
    other = make(config, tasks, seed=1)
    for trial, same, different in zip(trials, again, other, strict=True):
        assert trial.task is same.task
        assert all(torch.equal(*both) for both in zip(everything(trial), everything(same), strict=True))
        assert not all(torch.equal(*both) for both in zip(everything(trial), everything(different), strict=True))


def test_trials_adapt_on_training_pairs_and_score_on_validation_pairs(config, tasks, trials):
    assert [trial.task.name for trial in trials] == list(config.used_tasks)
    for trial, task in zip(trials, tasks, strict=True):
        assert [len(episode.support) for episode in trial.episodes] == [4, 4]
        query = validation_query(task, config.data.crop, config.seed)
        assert all(torch.equal(episode.query.first, query.first) for episode in trial.episodes)
        first, second = (episode.support[0].first for episode in trial.episodes)
        assert not torch.equal(first, second)
        for places, batches in (
            (task.training, [batch for episode in trial.episodes for batch in episode.support]),
            (task.validation, [query]),
        ):
            images = [torch.from_numpy(task.source[index][0] / 255).float() for index in places]
            windows = torch.cat([image.unfold(0, 20, 1).unfold(1, 20, 1).flatten(0, 1) for image in images])
            flips = torch.cat([windows, windows.flip(1), windows.flip(2), windows.flip(1, 2)])
            known = {(255 * window).round().to(torch.uint8).numpy().tobytes() for window in flips}
            crops = [crop for batch in batches for crop in batch.first[:, 0]]
            assert all((255 * crop).round().to(torch.uint8).numpy().tobytes() in known for crop in crops)


@pytest.mark.parametrize("mode", [True, False])
def test_a_curve_leaves_the_network_as_it_was_to_the_bit(network, adaptation, trials, mode):
    network.train(mode)
    before = copy.deepcopy(network.state_dict())
    places = [tensor.data_ptr() for tensor in network.state_dict().values()]
    for trial in trials:
        adaptation_curve(network, adaptation, trial, (0, 1, 4))
    after = network.state_dict()
    assert [tensor.data_ptr() for tensor in after.values()] == places
    assert all(after[name].numpy().tobytes() == tensor.numpy().tobytes() for name, tensor in before.items())
    assert all(part.training == mode for part in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_curve_starts_at_the_plain_loss_and_is_the_mean_over_the_episodes(network, adaptation, trials):
    for trial in trials:
        curve = adaptation_curve(network, adaptation, trial, (0, 1, 4))
        network.eval()
        with torch.no_grad():
            plain = pair_loss(trial.task.loss, network, trial.episodes[0].query).item()
        network.train()
        assert list(curve) == [0, 1, 4]
        assert curve[0] == pytest.approx(plain, abs=1e-7)
        alone = [adaptation_curve(network, adaptation, trial._replace(episodes=[one]), (4,)) for one in trial.episodes]
        assert alone[0][4] != alone[1][4]
        assert curve[4] == pytest.approx((alone[0][4] + alone[1][4]) / 2, abs=1e-7)


def test_scoring_on_the_way_changes_nothing(network, adaptation, trials):
    (trial, *_) = trials
    often = adaptation_curve(network, adaptation, trial, range(5))
    assert adaptation_curve(network, adaptation, trial, (4,)) == {4: often[4]}
    assert often == adaptation_curve(network, adaptation, trial, (4, 3, 2, 1, 0))


def test_adapting_in_place_ends_at_the_last_score_and_lowers_the_support_loss(network, adaptation, trials):
    (trial, *_) = trials
    episode, loss = trial.episodes[0], trial.task.loss
    same = episode._replace(support=(episode.support[0],) * 30)
    with torch.no_grad():
        before = pair_loss(loss, network, episode.support[0]).item()
    curve = adapt_and_score(network, adaptation, loss, same.support, same.query, (0, 30))
    with torch.no_grad():
        assert pair_loss(loss, network.train(), episode.support[0]).item() < 0.8 * before
        assert pair_loss(loss, network.eval(), episode.query).item() == pytest.approx(curve[30], rel=0.5)


def test_progress_advances_by_every_step(network, adaptation, trials, capsys):
    (trial, *_) = trials
    with Progress(4, "adapting") as progress:
        curve = adapt_and_score(network, adaptation, trial.task.loss, *trial.episodes[0], (0, 1, 4), progress)
        assert progress.completed == 4
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"validation loss {curve[4]:.4f}")
