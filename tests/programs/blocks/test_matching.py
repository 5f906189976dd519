"""Templates matched to pictures, against the densities they stand for."""

import torch
from torch.distributions import Normal

from programs.blocks import matching


def test_what_is_tried_splits_the_prior_into_equal_parts():
    values = matching.tried(3, 0.3)
    torch.testing.assert_close(values, -values.flip(0))
    shares = Normal(0, 0.3).cdf(values)
    torch.testing.assert_close(shares, torch.tensor([1 / 6, 3 / 6, 5 / 6]))


def test_blurring_keeps_the_sum_and_widens_by_half_a_square_pixel():
    picture = torch.zeros(2, 1, 11, 11)
    picture[..., 5, 5] = 1
    axis = torch.arange(11.0) - 5
    for times in (0, 1, 3):
        line = matching.blurred(picture, times).sum(-1)[0, 0]
        assert abs(float(line.sum()) - 1) < 1e-6
        assert abs(float((line * axis.square()).sum()) - 0.5 * times) < 1e-5


def test_log_likelihoods_differ_as_those_of_a_normal_do():
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(4, 1, 5, 5, generator=generator)
    expected = torch.rand(2, 3, 1, 5, 5, generator=generator)
    found = matching.log_likelihoods(seen, expected)
    exact = Normal(expected, 1.0).log_prob(seen[:, None, None]).flatten(-3).sum(-1)
    exact = exact - Normal(0.0, 1.0).log_prob(seen).flatten(1).sum(1)[:, None, None]
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def test_a_gain_is_what_the_best_template_explains_at_a_place():
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 1, 12, 12, generator=generator)
    templates = torch.rand(2, 1, 3, 3, generator=generator)
    for brightness in (0.3, 1.0, 3.0):
        gain = matching.gains(brightness * image, templates)
        assert gain.shape == (1, 1, 12, 12)
        exact = [0.0]
        for template in templates[:, 0]:
            for share in torch.linspace(0, 1, 201):
                mean = torch.zeros(12, 12)
                mean[6:9, 3:6] = share * template
                left = (brightness * image[0, 0] - mean).square().sum()
                exact.append(float(0.5 * ((brightness * image).square().sum() - left)))
        assert abs(float(gain[0, 0, 7, 4]) - max(exact)) < 1e-3


def test_a_small_object_is_explained_in_part_by_a_large_template():
    image = torch.zeros(1, 1, 9, 9)
    image[..., 4, 4] = 1
    gain = matching.gains(image, torch.ones(1, 1, 5, 5))
    assert abs(float(gain.max()) - 0.5 / 25) < 1e-6 and float(gain[0, 0, 4, 4]) == float(gain.max())
