"""Every test starts from Pyro's defaults, with validation on and a fixed seed."""

from collections.abc import Iterator

import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def clean_pyro(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.set_num_threads(1)
    pyro.clear_param_store()
    pyro.enable_validation(True)
    pyro.set_rng_seed(0)
    with pyro.settings.context(module_local_params=True):
        yield
    pyro.clear_param_store()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Worlds made by tests go to a folder of their own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
