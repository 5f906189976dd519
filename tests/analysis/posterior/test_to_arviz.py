"""Posteriors as ArviZ reads them."""

import os
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import small_programs
import tiny
import torch
import xarray

from analysis import posterior
from analysis.posterior import (
    to_arviz,
)
from analysis.posterior.to_arviz import to_inference_data
from inference.runs import open_run


def simulate(small, number):
    return small_programs.simulate(small, number)[0]


@pytest.fixture(scope="module")
def gsgn():
    """Eight images of the shipped run, with the truth."""
    with pyro.settings.context(module_local_params=True):
        run = open_run("gsgn-shapes2d")
        program, guide = run.program, run.guide
    data = run.unseen(8)
    images = data.floats()
    return program, guide, images, data.truth(slice(0, 8))


@pytest.fixture(scope="module")
def posterior_file(gsgn, tmp_path_factory):
    program, guide, images, truth = gsgn
    data = to_inference_data(program, guide, images, truth=truth, num_samples=30)
    path = tmp_path_factory.mktemp("posterior") / "posterior.nc"
    data.to_netcdf(str(path))
    return path


def test_groups_have_arvizs_names_and_dimensions(posterior_file):
    with xarray.open_dataset(posterior_file, group="posterior") as group:
        sizes = {name: group[name].dims for name in group.data_vars}
        assert sizes["z_pres_1"] == ("chain", "draw", "image", "object")
        assert sizes["z_where_2"] == ("chain", "draw", "image", "part", "z_where_2_dim_0")
        assert sizes["n_parts"] == ("chain", "draw", "image")
        assert sizes["occupancy"] == ("chain", "draw", "image", "cell_y", "cell_x")
        assert dict(group.sizes)["draw"] == 30 and group["z_pres_1"].dtype == np.int8
        assert set(group["z_pres_1"].values.flat) == {0, 1}
        np.testing.assert_array_equal(group["n_objects"], group["z_pres_1"].sum("object"))
    with xarray.open_dataset(posterior_file, group="sample_stats") as group:
        weight = group["lp"] - group["log_q"]
        np.testing.assert_allclose(weight, group["log_weight"], atol=0.01)
        assert group["khat"].dims == ("image",)
    with xarray.open_dataset(posterior_file, group="posterior_predictive") as group:
        assert group["images"].dims == ("chain", "draw", "image", "y", "x", "channel")
        mean, edges = group["images"].mean(("y", "x", "channel")), group["brightness"]
        np.testing.assert_allclose(mean, edges, atol=1e-5)


READ = """
import sys, warnings
warnings.simplefilter("ignore")
import matplotlib
matplotlib.use("agg")
import arviz as az
data, old = az.from_netcdf(sys.argv[1]), az.__version__.startswith("0.")
table = az.summary(data, var_names=["n_objects", "n_parts"], kind="stats")
assert len(table) == 16, table
plots = (az.plot_ppc, az.plot_rank) if old else (az.plot_ppc_dist, az.plot_dist)
plots[0](data, var_names=["edge_energy"])
plots[1](data, var_names=["covered_area"])
print(az.__version__)
"""


@pytest.mark.parametrize("python", [sys.executable, os.environ.get("ARVIZ1_PYTHON")])
def test_plain_arviz_reads_summarises_and_plots_the_file(python, posterior_file):
    """In a fresh interpreter; and in that of ARVIZ1_PYTHON, which has ArviZ 1.x, where there is one."""
    if python is None:
        pytest.skip("ARVIZ1_PYTHON names no interpreter with ArviZ 1.x")
    found = subprocess.run(
        [python, "-c", READ, str(posterior_file)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]


def test_the_file_is_complete_in_memory_too(gsgn):
    program, guide, images, _ = gsgn
    matplotlib.use("agg")
    wide = {"n_wide": lambda scene: (scene.objects.extent[..., 0] > 0.2).sum(1)}
    data = to_inference_data(program, guide, images[:2], num_samples=10, prior=False, of=wide)
    assert data["posterior"]["n_wide"].shape == (1, 10, 2) and "n_objects" not in data["posterior"]
    data = to_inference_data(program, guide, images[:2], num_samples=10, prior=False)
    assert "prior" not in data and "constant_data" not in data
    table = to_arviz.summary(data, ["n_objects"])
    assert list(table.index) == ["n_objects[0]", "n_objects[1]"]
    attrs = data.attrs
    assert attrs["program"] == "programs.gsgn.Program" and attrs["inference_library"] == "pyro-ppl"


def test_steps_are_stacked_and_dimensions_can_be_named():
    small = small_programs.Count()
    x = simulate(small, 3)
    data = to_inference_data(
        small.program, small.guide(), x, num_samples=5, coords={"image": ["a", "b", "c"]}
    )
    assert data["posterior"]["z_pres"].dims == ("chain", "draw", "image", "object")
    assert list(data["posterior"]["image"].values) == ["a", "b", "c"]
    assert "khat" not in data["sample_stats"]


def test_names_of_dimensions_must_fit():
    run = open_run("air-multi_mnist")
    program, guide = run.program, run.guide
    x = run.unseen(2).floats()
    named = {"z_where": ["size_and_place"]}
    data = to_inference_data(program, guide, x, num_samples=2, dims=named, prior=False)
    assert data["posterior"]["z_where"].dims[-2:] == ("object", "size_and_place")
    with pytest.raises(ValueError, match=r"dims\['z_where'\]=\['a', 'b'\] names 2 dimensions"):
        to_inference_data(program, guide, x, num_samples=2, dims={"z_where": ["a", "b"]})


def test_files_stay_small(gsgn):
    program, guide, images, _ = gsgn
    with pytest.warns(UserWarning, match=r"kept the first 2 of 8 images, to stay below 0.2 MB"):
        data = to_inference_data(
            program, guide, images, num_samples=15, prior=False, max_megabytes=0.2
        )
    assert data["posterior"].sizes["image"] == 2
    with pytest.raises(ValueError, match="15 draws of an image take 0 MB of latents"):
        to_inference_data(program, guide, images, num_samples=15, max_megabytes=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = to_inference_data(program, guide, images, num_samples=15, max_megabytes=10)
    groups = ("posterior", "posterior_predictive", "prior", "prior_predictive")
    assert sum(data[group].nbytes for group in groups) < 10e6


def test_posterior_predictive_needs_the_site_images():
    def program(images=None, batch=1):
        with pyro.plate("batch", len(images)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("seen", dist.Normal(z, 1.0), obs=images.mean((1, 2, 3)))

    def guide(images, batch=1):
        with pyro.plate("batch", len(images)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"this program observes \['seen'\]"):
        posterior.draw(program, guide, torch.rand(2, 1, 4, 4), 3)


def test_latents_that_some_steps_lack_stay_apart():
    """ECON's background, the last step, has no mask and is never empty."""
    program, guide = tiny.build("econ", empty=True)
    found = to_inference_data(program, guide, torch.rand(2, 3, 32, 32), num_samples=2).posterior
    assert found["z_cat"].sizes["step"] == program.layers
    for t in (2, 3, 4):
        assert "step" not in found[f"z_layer_{t}"].dims and f"z_mask_{t}" in found
    assert "z_layer" not in found and "z_layer_1" not in found
