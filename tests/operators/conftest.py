"""What the tests of operators share: random weights that leave no part of a module zero or the identity."""

import pytest
import torch


@pytest.fixture(scope="session")
def randomise():
    """A function that gives a module random float64 weights and statistics, negative PReLU slopes included."""

    def draw(module, seed=0):
        generator = torch.Generator().manual_seed(seed)
        module.double()
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0.0, max(1, tensor[0].numel()) ** -0.5, generator=generator)
        return module

    return draw


@pytest.fixture(scope="session")
def normal():
    """A function that draws a float64 tensor of a shape."""

    def draw(*shape, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return draw
