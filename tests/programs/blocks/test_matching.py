"""Templates matched to pictures, against the densities they stand for."""

from itertools import combinations

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from programs.blocks import matching


def test_what_is_tried_splits_the_prior_into_equal_parts():
    values = matching.tried(3, 0.3)
    torch.testing.assert_close(values, -values.flip(0))
    shares = Normal(0, 0.3).cdf(values)
    torch.testing.assert_close(shares, torch.tensor([1 / 6, 3 / 6, 5 / 6]))


def test_log_likelihoods_differ_as_those_of_a_normal_do():
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(4, 1, 5, 5, generator=generator)
    expected = torch.rand(2, 3, 1, 5, 5, generator=generator)
    found = matching.log_likelihoods(seen, expected)
    exact = Normal(expected, 1.0).log_prob(seen[:, None, None]).flatten(-3).sum(-1)
    exact = exact - Normal(0.0, 1.0).log_prob(seen).flatten(1).sum(1)[:, None, None]
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def test_a_template_that_varies_is_a_normal_with_a_covariance():
    generator = torch.Generator().manual_seed(3)
    seen, expected = (torch.randn(n, 1, 3, 4, generator=generator) for n in (5, 2))
    ways = torch.randn(2, 3, 1, 3, 4, generator=generator)
    precision = torch.rand(5, generator=generator) + 0.5
    found = matching.log_likelihoods_beyond(seen, expected, matching.variations(ways), precision)
    flat = ways.flatten(2)
    for image, scale, values in zip(seen.flatten(1), precision, found, strict=True):
        noise = torch.eye(12) / scale
        still = MultivariateNormal(expected.flatten(1), noise).log_prob(image)
        varied = MultivariateNormal(expected.flatten(1), noise + flat.mT @ flat).log_prob(image)
        torch.testing.assert_close(values, varied - still, rtol=1e-3, atol=1e-3)


def test_a_peak_explains_what_the_best_template_explains_at_that_place():
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 1, 12, 12, generator=generator)
    templates = torch.rand(1, 2, 1, 3, 3, generator=generator)
    for brightness in (0.3, 1.0, 3.0):
        found = matching.peaks(brightness * image, templates, 1)
        y, x = divmod(int(found.place), 12)
        explained = []
        for template in templates[0, :, 0]:
            mean = torch.zeros(201, 14, 14)
            mean[:, y : y + 3, x : x + 3] = torch.linspace(0, 1, 201)[:, None, None] * template
            left = (brightness * image[0, 0] - mean[:, 1:13, 1:13]).square().sum((1, 2))
            explained.append(0.5 * ((brightness * image).square().sum() - left))
        best = max(explained, key=lambda gains: gains[-1])  # of the two at full brightness
        assert float(found.explained) == pytest.approx(float(best.max()), abs=1e-3)


def test_a_picture_lies_with_its_middle_at_its_place():
    patches = torch.arange(1.0, 10.0).view(1, 1, 1, 3, 3)
    drawn = matching.put(patches, torch.tensor([[0]]), torch.tensor([[4]]), 5, 6)
    expected = torch.zeros(5, 6)
    expected[:2, 3:] = torch.tensor([[4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    assert torch.equal(drawn[0, 0, 0], expected)


def test_a_small_object_is_explained_in_part_by_a_large_template():
    image = torch.zeros(1, 1, 9, 9)
    image[..., 4, 4] = 1
    found = matching.peaks(image, torch.ones(1, 1, 1, 5, 5), 2)
    torch.testing.assert_close(found.explained[0, 0], torch.tensor(0.5 / 25))


def test_the_best_set_is_that_of_all_sets():
    generator = torch.Generator().manual_seed(2)
    for most in (1, 2, 3):
        pictures = torch.randn(20, 6, 8, generator=generator)
        images = torch.randn(20, 1, 8, generator=generator)
        overlap = pictures @ pictures.mT
        own = (images @ pictures.mT)[:, 0] - 0.5 * overlap.diagonal(dim1=1, dim2=2)
        found = matching.together(own, overlap, most)
        for image, several, members in zip(images, pictures, found, strict=True):
            exact = {
                some: -0.5 * float((image - several[list(some)].sum(0)).square().sum())
                for n in range(most + 1)
                for some in combinations(range(6), n)
            }
            assert tuple(sorted(int(i) for i in members if i < 6)) == max(exact, key=exact.get)


def test_two_that_fit_are_better_than_one_that_covers_both():
    image = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    pictures = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1]])
    overlap = (pictures @ pictures.T)[None]
    own = (pictures @ image)[None] - 0.5 * overlap.diagonal(dim1=1, dim2=2)
    assert int(own.argmax()) == 0
    assert sorted(matching.together(own, overlap, 3)[0].tolist()) == [1, 2, 3]
