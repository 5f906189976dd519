"""Networks: absent nodes are left out."""

import pytest
import torch

from programs.blocks import nets


def test_absent_nodes_are_computed_only_without_gradients():
    seen = []

    def double(x):
        seen.append(len(x.reshape(-1, 2)))
        return 2 * x

    exists, x = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 1e-6]]), torch.rand(2, 3, 2)
    found = nets.where_present(exists, double, x)
    torch.testing.assert_close(found, 2 * x * (exists > nets.ABSENT).unsqueeze(-1))
    with torch.no_grad():
        torch.testing.assert_close(nets.where_present(exists, double, x), 2 * x)
    nets.where_present(torch.zeros(2, 3), double, x)  # nobody at all
    assert seen == [2, 6, 1]


@pytest.mark.parametrize(
    "size, channels, outputs", [(16, 32, 4), (8, 32, 4), (32, 64, 2), (4, 16, 4)]
)
def test_a_shuffle_after_the_last_convolution_is_the_same_function(size, channels, outputs):
    torch.manual_seed(0)
    decoder = nets.SubpixelDecoder(6, size, channels, outputs).double()
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    z = torch.randn(2, 3, 6, dtype=torch.double)
    seed = decoder.seed(z.flatten(0, 1)).unflatten(-1, (-1, 4, 4))
    plain = torch.nn.Sequential.forward(decoder.layers, seed).unflatten(0, (2, 3))
    found = decoder(z)
    torch.testing.assert_close(found, plain)
    weights = list(decoder.parameters())
    pairs = (torch.autograd.grad(y.square().sum(), weights) for y in (found, plain))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b)
    assert not any("spread" in name for name in decoder.state_dict())


@pytest.mark.parametrize("size, inputs", [(8, 3), (6, 1), (2, 4)])
def test_halving_has_the_gradients_of_a_strided_convolution(size, inputs):
    torch.manual_seed(0)
    layer = nets.Halving(inputs, 5).double()
    x = torch.randn(2, inputs, size, size, dtype=torch.double, requires_grad=True)
    plain = torch.nn.functional.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
    found = layer(x)
    assert found.grad_fn.name() != plain.grad_fn.name()
    torch.testing.assert_close(found, plain)
    wanted = [x, layer.weight, layer.bias]
    slope = torch.randn_like(found)
    pairs = (torch.autograd.grad(y, wanted, slope, create_graph=True) for y in (found, plain))
    once = [torch.cat([g.flatten() for g in grads]) for grads in pairs]
    torch.testing.assert_close(*once)
    twice = (torch.autograd.grad(g.square().sum(), wanted[:2]) for g in once)
    for a, b in zip(*twice, strict=True):
        torch.testing.assert_close(a, b)
