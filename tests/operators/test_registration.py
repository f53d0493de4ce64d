"""Operators of one's own: what may be registered, what a file of them may hold, and that everything works with them."""

import hashlib

import pytest
import torch
from torch import nn

from timfuse.drawing import draw
from timfuse.genotypes import ALL_OPERATORS, CellGenotype, Genotype, parse_operator
from timfuse.operators import (
    build_network,
    build_operator,
    count_flops,
    fold_batch_norm,
    for_inference,
    load_operators,
    parameter_sizes,
    receptive_field,
    register_operator,
)
from timfuse.operators.inference import PooledGroupNorm
from timfuse.operators.mixture import MixedOperator
from timfuse.operators.normalisation import BatchNorm, build_norm
from timfuse.operators.registration import operator_sources
from timfuse.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("registrations")

BLUR = """
from torch import nn
from timfuse.operators import register_operator

@register_operator("blur", kernels=(5, 3), radius=2)
def blur(channels: int, kernel: int) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
"""
MODULE = """
from dataclasses import dataclass
import torch
from torch import nn
from timfuse.operators import register_operator
from timfuse.operators.pooling import GlobalMean

@dataclass
class Setting:
    value: int = 1

@register_operator("own"{options})
class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels, 1, 1))
        self.mean = GlobalMean()

    def forward(self, x):
        {forward}
"""


@pytest.fixture
def written(tmp_path):
    """A function that writes a file of operators."""

    def write(text, name="my_operators.py"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_brings_operators_along(written):
    path = written(BLUR)
    assert load_operators(path) == ("blur_k3", "blur_k5")
    assert parse_operator("blur_k5").in_words == "blur 5×5"
    assert build_operator("blur_k5", 6).kernel_size == (5, 5)
    assert "blur_k3" not in ALL_OPERATORS
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    blur = {"file": "my_operators.py", "sha256": digest}
    assert operator_sources(["blur_k3", "dense_k3_d1", "blur_k5"]) == {"blur": blur}
    assert operator_sources(["dense_k3_d1"]) == {}


def test_reading_a_file_again_takes_its_new_text_and_draws_no_random_number(written):
    load_operators(written(BLUR))
    state = torch.get_rng_state()
    assert load_operators(written(BLUR.replace("(5, 3)", "(7,)").replace("radius=2", "radius=3"))) == ("blur_k7",)
    assert torch.equal(torch.get_rng_state(), state)
    told = refusal(load_operators, written(BLUR, "other.py"))
    assert "other.py, line 5: the operator blur is registered already, by blur of " in told
    told = refusal(load_operators, written(BLUR.replace("def blur", "def blurred")))
    assert "registered already" in told


def test_what_a_function_takes_is_what_it_gets():
    given = {}

    @register_operator("taking", kernels=(3,), dilations=(2, 1), words="so much", radius=9)
    def take(norm, *, dilation, kernel, channels):
        given.update(norm=norm, dilation=dilation, kernel=kernel, channels=channels)
        return nn.Identity()

    build_operator("taking_k3_d2", 4, "group")
    assert given == {"norm": "group", "dilation": 2, "kernel": 3, "channels": 4}
    assert parse_operator("taking_k3_d2").in_words == "so much 3×3, dilation 2"
    register_operator("copied")(lambda: nn.Identity())
    assert isinstance(build_operator("copied", 4), nn.Identity)


@pytest.mark.parametrize(
    ("name", "options", "function", "told"),
    [
        ("Blur", {}, lambda channels: 0, "write lower-case letters, digits and single underscores"),
        ("blur__x", {}, lambda channels: 0, "cannot be the name of an operator"),
        (nn.Identity, {}, None, 'write @register_operator("NAME")'),
        ("dense", {}, lambda channels: 0, "the operator dense belongs to timfuse"),
        ("blur_k3", {}, lambda channels: 0, "ends in _k3, like the id of an operator"),
        ("blur_k3_d1", {}, lambda channels: 0, "ends in _d1"),
        ("blur", {"kernels": (3, 4)}, lambda kernel: 0, "kernels of blur must be different odd whole numbers above 0"),
        ("blur", {"kernels": (3, 3)}, lambda kernel: 0, "not (3, 3)"),
        ("blur", {"kernels": 3}, lambda kernel: 0, "like (1, 3), not 3"),
        ("blur", {"kernels": "3"}, lambda kernel: 0, "not ('3',)"),
        ("blur", {"dilations": (0,)}, lambda dilation: 0, "dilations of blur must be different whole numbers above 0"),
        ("blur", {"dilations": (True,)}, lambda dilation: 0, "not (True,)"),
        ("blur", {"words": ""}, lambda channels: 0, "words of blur must be one line of text"),
        ("blur", {"words": "a\nb"}, lambda channels: 0, "words of blur must be one line of text"),
        ("blur", {"radius": -1}, lambda channels: 0, "radius of blur must be a whole number"),
        ("blur", {"radius": 1.5}, lambda channels: 0, "radius of blur must be a whole number"),
        ("blur", {}, lambda chanels, width=3: 0, "has the unknown parameters chanels, width=3; take channels"),
        ("blur", {}, lambda *channels, **norm: 0, "has the unknown parameters *channels, **norm"),
        ("blur", {}, lambda kernel: 0, "takes a kernel; list the values, like kernels=(1, 3)"),
        ("blur", {}, lambda dilation: 0, "takes a dilation; list the values, like dilations=(1, 3)"),
        ("blur", {"kernels": (3,)}, lambda channels: 0, "blur has kernels, but its function takes no kernel"),
    ],
)
def test_what_cannot_be_registered(name, options, function, told):
    def register():
        register_operator(name, **options)(function)

    assert told in refusal(register)
    assert "blur" not in refusal(parse_operator, "dense_k9").partition("allowed")[2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot read {path}: No such file or directory; check the path given to --operators"),
        ("x = 1\n", '{path} registers no operator; write @register_operator("NAME") above a function in it'),
        ("x = 1\nif x\n", "{path}, line 2: SyntaxError: "),
        ("\0", "{path}: SyntaxError: "),
        ("def f():\n    import no_such_module\nf()\n", "{path}, line 2: ModuleNotFoundError: No module named"),
        ("import sys\n\nsys.exit(3)\n", "{path}, line 3: SystemExit: 3"),
        ("raise ValueError\n", "{path}, line 1: ValueError"),
        (BLUR.replace('"blur"', '"Blur"'), "{path}, line 5: 'Blur' cannot be the name of an operator"),
        (BLUR.replace("(5, 3)", "(5, 4)"), "{path}, line 5: kernels of blur"),
        (
            BLUR.replace("groups=channels", "groups=3"),
            "{path}, line 7: the operator blur cannot be built with channels=4, kernel=3: ValueError: ",
        ),
        (BLUR.replace("return nn.", "return nn.functional."), "{path}, line 7: the operator blur cannot be built"),
        (
            BLUR.replace("return", "return 3 #"),
            "{path}: the function of blur returned a int; return a torch.nn.Module",
        ),
        (BLUR.replace("kernel // 2,", "0,"), "the operator blur_k3 maps (2, 4, 9, 11) to (2, 4, 7, 9); it must keep"),
        (BLUR.replace("radius=2", "radius=1"), "the operator blur_k5 reads pixels more than its radius=1 away"),
    ],
)
def test_files_with_mistakes(written, tmp_path, text, told):
    path = tmp_path / "my_operators.py"
    if text is not None:
        written(text)
    assert told.format(path=path) in refusal(load_operators, path)


@pytest.mark.parametrize(
    ("forward", "told"),
    [
        ("return x.mul_(self.weight)", "changes its input, which other operators read too"),
        ("return x * self.weight / 0", "returns numbers that are not finite"),
        ("return (x * self.weight).double()", "maps torch.float32 to torch.float64; it must keep the dtype"),
        ("return x, self.weight", "returns a tuple; its forward must return a tensor"),
        ("return (x * self.weight).detach()", "returns an output without gradient"),
        ("return self.weight.expand(x.shape)", "does not depend on its input"),
        ("return x * self.weight.detach()", "has parameters, but no gradient reaches them"),
        ("return x * (self.weight + (x - x).abs().sqrt())", "has a gradient that is not finite"),
        ("return x * self.weigth", "line 20: the operator own fails in evaluation: AttributeError: "),
        ("return x if self.training else x[:1] * self.weight", "maps (2, 4, 9, 11) to (1, 4, 9, 11)"),
        ("return x * self.weight[0 if self.training else ...]", None),
        ("return x[:, :, :, :3] if self.training else x * self.weight", "maps (2, 4, 9, 11) to (2, 4, 9, 3)"),
        ("return x * self.weight * torch.ones(11)", "fails on the meta device, where operations are counted"),
    ],
)
def test_operators_with_mistakes(written, forward, told):
    path = written(MODULE.format(options="", forward=forward))
    if told is None:
        assert load_operators(path) == ("own",)
    else:
        message = refusal(load_operators, path)
        assert message.startswith(str(path))
        assert told in message


@pytest.mark.parametrize(
    ("radius", "forward", "sound"),
    [
        (0, "return x * self.weight * self.mean(x)", True),
        (0, "return x * self.weight * x.mean((2, 3), keepdim=True)", False),
        (1, "return self.weight * nn.functional.avg_pool2d(x, 3, 1, 1)", True),
        (0, "return self.weight * nn.functional.avg_pool2d(x, 3, 1, 1)", False),
        (1, "return self.weight * nn.functional.pad(x, (0, 1))[..., 1:]", True),
        (0, "return self.weight * nn.functional.pad(x, (0, 1))[..., 1:]", False),
        (0, "return self.weight * nn.functional.pad(x, (0, 0, 30, 0))[..., :-30, :]", False),
        (2, "return self.weight * x * (torch.arange(x.shape[-1], device=x.device) % 2)", False),
    ],
)
def test_a_radius_has_to_be_true(written, radius, forward, sound):
    path = written(MODULE.format(options=f", radius={radius}", forward=forward))
    if sound:
        assert load_operators(path) == ("own",)
        genotype = Genotype("own", "mri-ct", "fusion", 2, (CellGenotype("successive", ("own", "own")),))
        assert receptive_field(genotype) == 4 + 2 * radius
    else:
        assert f"reads pixels more than its radius={radius} away" in refusal(load_operators, path)


def own_sequence(channels, norm):
    """What `for_inference` would take for parts of its own, if it looked inside."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1),
        build_norm(norm, channels),
    )


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("kind", ["successive", "multi_scale", "decomposition"])
def test_networks_of_them(tmp_path, randomise, normal, kind, norm):
    register_operator("sequence", radius=1, words="<my> sequence")(own_sequence)
    genotype = Genotype("own", "mri-ct", "fusion", 4, (CellGenotype(kind, ("sequence", "residual_k3_d1")),), norm=norm)
    network = randomise(build_network(genotype)).eval()
    first, second = normal(2, 1, 1, 20, 24)
    expected = network(first, second)
    torch.testing.assert_close(fold_batch_norm(network)(first, second), expected, rtol=1e-10, atol=1e-10)
    rewritten = for_inference(network)
    torch.testing.assert_close(rewritten(first, second), expected, rtol=1e-10, atol=1e-10)
    modules = list(rewritten.cells[0].modules())
    assert any(isinstance(module, BatchNorm if norm == "batch" else PooledGroupNorm) for module in modules)
    assert count_flops(network.float(), 20, 24) > 0
    assert receptive_field(genotype) is not None
    files = draw(genotype, tmp_path, parameter_sizes(network))
    assert "my" in next(file for file in files if file.suffix == ".svg").read_text(encoding="utf-8")


def test_a_mixture_of_them(randomise, normal):
    register_operator("sequence")(own_sequence)
    candidates = [build_operator(name, 4) for name in ("sequence", "dense_k3_d1", "identity")]
    mixture = randomise(MixedOperator(candidates)).eval()
    x, probabilities = normal(2, 4, 9, 10), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    expected = sum(p * candidate(x) for p, candidate in zip(probabilities, candidates, strict=True))
    torch.testing.assert_close(mixture(x, probabilities), expected)


def test_without_a_radius_a_network_looks_at_the_whole_image():
    register_operator("sequence")(own_sequence)
    cells = (CellGenotype("successive", ("residual_k3_d1", "sequence")),)
    assert receptive_field(Genotype("own", "mri-ct", "fusion", 4, cells)) is None
