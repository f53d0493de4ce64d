import pytest
import torch

from timfuse.bilevel import layers_of
from timfuse.genotypes import load_genotype
from timfuse.meta_init.rates import adaptation_of, adapting_layers, load_rates, plain_adaptation, save_rates
from timfuse.operators import build_network
from timfuse.runtime.errors import UserError


@pytest.fixture
def network(genotype):
    return build_network(load_genotype(genotype))


def test_all_parameters_adapt_unless_one_part_is_named(network):
    adapting = [parameter for layer in adapting_layers(network, None).values() for parameter in layer]
    assert {id(parameter) for parameter in adapting} == {id(parameter) for parameter in network.parameters()}
    assert len(adapting) == len(list(network.parameters()))
    adapting = {id(parameter) for layer in adapting_layers(network, "head").values() for parameter in layer}
    assert adapting == {id(parameter) for parameter in network.head.parameters()}
    for name in ("tail", "hea", ""):
        with pytest.raises(UserError, match=rf"^inner\.layers = '{name}' must name a part of the network: .*head"):
            adapting_layers(network, name)


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_each_layer_steps_at_its_rate(network, name, kind):
    layers = adapting_layers(network, None)
    rates = torch.linspace(0.1, 0.2, len(layers))
    optimizer = adaptation_of(layers, rates, name).build_optimizer()
    assert type(optimizer) is kind
    assert [group["lr"] for group in optimizer.param_groups] == rates.tolist()
    assert [group["params"] for group in optimizer.param_groups] == list(layers.values())


def test_the_baseline_of_random_weights_adapts_all_layers_by_adam_at_its_rate(network):
    """One that learns more slowly or quickly would make initialisations look better or worse than they are."""
    optimizer = plain_adaptation(network).build_optimizer()
    assert type(optimizer) is torch.optim.Adam
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2e-3] * len(layers_of(network)))
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in network.parameters()}


def test_rates_come_back_to_the_bit(network, tmp_path):
    layers = adapting_layers(network, None)
    rates = torch.logspace(-7, 1, len(layers))
    save_rates(tmp_path, layers, rates)
    assert torch.equal(load_rates(tmp_path, layers), rates)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (None, None, "cannot read .*rates.yaml; name the folder of a finished meta-initialisation"),
        ("", "", None),
        ("head", "heat", "does not name the layers of the network beside it; get both from one run"),
        ("0.5", "-0.5", "must hold a positive number for each layer"),
        ("0.5", "0.0", "must hold a positive number for each layer"),
        ("0.5", "half", "must hold a positive number for each layer"),
        ("0.5", "true", "must hold a positive number for each layer"),
        ("0.5", ".nan", "must hold a positive number for each layer"),
        ("0.5", ".inf", "must hold a positive number for each layer"),
        ("0.5", "[0.5", "rates.yaml"),
    ],
)
def test_rates_that_were_tampered_with(network, tmp_path, old, new, message):
    layers = adapting_layers(network, None)
    save_rates(tmp_path, layers, torch.full((len(layers),), 0.5))
    path = tmp_path / "rates.yaml"
    if old is None:
        path.unlink()
    else:
        path.write_text(path.read_text().replace(old, new))
    if message is None:
        assert load_rates(tmp_path, layers).tolist() == [0.5] * len(layers)
        return
    with pytest.raises(UserError, match=message) as caught:
        load_rates(tmp_path, layers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 0.5\n", "0.5\n"])
def test_rates_that_are_no_mapping(network, tmp_path, text):
    (tmp_path / "rates.yaml").write_text(text)
    with pytest.raises(UserError, match="does not name the layers of the network"):
        load_rates(tmp_path, adapting_layers(network, None))
