"""Scores of images: the Fréchet distance and the squared error."""

import pytest
import torch
from scenes_by_hand import two_objects

from analysis import scores as m


def test_frechet_distance_of_gaussians():
    """Between N(0, 1) and N(m, s²), feature by feature: m² + (1 - s)²; correlated, by brute force."""
    from scipy.linalg import sqrtm

    x = torch.randn(4000, 3, dtype=torch.float64)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    assert m.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert m.frechet_distance(x, 2 * x + 0.5) == pytest.approx(3 * (0.25 + 1))
    y = x @ torch.tensor([[1.0, 0.5, 0], [0, 2, 0.3], [0.1, 0, 0.7]], dtype=torch.float64) + 0.2
    x = x @ torch.tensor([[2.0, 0, 0.4], [0, 1, 0], [0.3, 0, 1]], dtype=torch.float64)
    one, other = x.T.cov(), y.T.cov()
    means = (x.mean(0) - y.mean(0)).square().sum()
    root = sqrtm((one @ other).numpy()).real.trace()
    expected = float(means + one.trace() + other.trace()) - 2 * root
    assert m.frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"\(3,\): expected \(N, F\)"):
        m.frechet_distance(x[0], y)


def test_mse_is_a_mean_over_pixels_and_channels():
    scene = two_objects()
    image = torch.zeros(1, 3, 8, 8)
    image[0, 1, 2, 3] = 0.5
    assert m.mse(scene, image) == pytest.approx(0.25 / 192)
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\)"):
        m.mse(scene, image[:, :1])
