"""Networks of experts: each row goes through that of its own."""

import torch
from torch.nn import functional as F

from programs.blocks.experts import ExpertConv, ExpertEncoder, ExpertLinear, ExpertUNet


def test_a_row_goes_through_its_experts_own_convolution():
    cat, x = F.one_hot(torch.tensor([2, 0, 2, 1]), 3).float(), torch.randn(4, 5, 6, 6)
    for kernel, stride in ((3, 1), (3, 2), (1, 1)):
        conv = ExpertConv(3, 5, 4, kernel, stride)
        y = conv(x, cat)
        for i, k in enumerate((2, 0, 2, 1)):
            weight = conv.weight[k].view(4, 5, kernel, kernel)
            alone = F.conv2d(x[i : i + 1], weight, conv.bias[k], stride, kernel // 2)
            torch.testing.assert_close(y[i : i + 1], alone, rtol=1e-4, atol=1e-5)
    linear, flat = ExpertLinear(3, 7, 2), torch.randn(4, 7)
    whole = linear.all(flat).view(4, 3, 2)
    torch.testing.assert_close(linear(flat, cat), whole[range(4), (2, 0, 2, 1)])


def test_rows_of_one_expert_after_another_go_through_the_same_networks():
    cat, x = F.one_hot(torch.tensor([0, 0, 1, 1, 2, 2]), 3).float(), torch.randn(6, 5, 6, 6)
    for kernel, stride in ((3, 1), (3, 2), (1, 1)):
        conv = ExpertConv(3, 5, 4, kernel, stride)
        torch.testing.assert_close(conv(x, None), conv(x, cat), rtol=1e-4, atol=1e-5)
    linear, flat = ExpertLinear(3, 7, 2), torch.randn(6, 7)
    torch.testing.assert_close(linear(flat, None), linear(flat, cat))


def test_pictures_and_pixels_of_one_expert_after_another_go_through_the_same_networks():
    cat, x = F.one_hot(torch.tensor([0, 0, 1, 1]), 2).float(), torch.rand(4, 4, 16, 16)
    net = ExpertUNet(2, 16, (4, 8), 8, features=3, patch=2, reach=1.5)
    features = net(x, cat)
    assert features.shape == (4, 3, 16, 16)
    torch.testing.assert_close(net(x, None), features, rtol=1e-3, atol=1e-4)
    at = torch.tensor([3, 40, 100, 255])
    near = net.near(features, at, cat)
    torch.testing.assert_close(net.near(features, at, None), near)
    torch.testing.assert_close(near.flatten(1).gather(1, at[:, None]), torch.full((4, 1), 1.5))
    assert (near <= 1.5 + 1e-6).all() and (near < 1.4).any()
    for options in ({"pooling": True}, {"span": 0.4}):
        encoder = ExpertEncoder(2, 16, 4, 2, 8, latents=5, **options)
        for one, other in zip(*(encoder(x[:, :3], x[:, 3], c) for c in (cat, None)), strict=True):
            assert one.shape == (4, 5)
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
