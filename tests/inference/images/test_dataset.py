"""Data sets, and which images a step trains on."""

import pytest
import torch

from inference.images.dataset import Sampler


def test_a_sampler_shows_every_image_once_an_epoch_and_is_a_function_of_the_step():
    sampler = Sampler(10, 3, seed=5)
    epoch = torch.cat([sampler.indices(s) for s in range(3)])
    assert len(epoch.unique()) == 9
    second = torch.cat([sampler.indices(s) for s in range(3, 6)])
    assert not torch.equal(epoch, second)
    fresh = Sampler(10, 3, seed=5)
    assert torch.equal(fresh.indices(4), second[3:6])
    assert torch.equal(torch.cat([sampler.indices(s) for s in range(3)]), epoch)
    assert not torch.equal(Sampler(10, 3, seed=6).indices(0), epoch[:3])
    with pytest.raises(ValueError, match="batch=11"):
        Sampler(10, 11, seed=0)
