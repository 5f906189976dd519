"""A posterior in ArviZ's form, and its names for groups, dimensions and coordinates; for ArviZ 0.23 and 1.x.

Groups are built as xarray Datasets of our own; only the container and a few calls differ between the two
versions (0.x: InferenceData, 1.x: xarray's DataTree), and this file hides them. Files are netCDF, which
both read.

==========================  ===============================================================
``chain, draw``             one chain of independent draws, so R-hat and ESS of chains do not apply
``image``                   index of the image
``object, part, level_L``   slots of the objects, of the leaves, of a level in between
``step``                    steps of a program, stacked, that are not objects
``y, x, channel``           pixels
``cell_y, cell_x``          cells of the map of occupancy
==========================  ===============================================================
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import torch
import xarray
from torch import Tensor

from analysis.posterior import (
    SHORTEST,
    Draws,
    Quantities,
    draw,
    draw_prior,
    ess,
    iwae,
    khat,
    quantities,
    samples,
)
from programs.scene import Scene

Dims = Mapping[str, Sequence[str]]
Labels = Mapping[str, Sequence]
SAMPLE = ("chain", "draw", "image")
PIXELS = ("y", "x", "channel")
EVENTS = {"occupancy": ("cell_y", "cell_x"), "centroid": ("axis",), "colour": ("channel",)}
"""Names of the dimensions of quantities that are arrays."""
COORDINATES = {"axis": ["x", "y"]}
BUDGET = {"posterior": 0.5, "pictures": 0.3, "prior": 0.2}
"""Shares of a file's bytes per group."""


def to_inference_data(
    program: Callable,
    guide: Callable,
    images: Tensor,
    *,
    num_samples: int = 100,
    prior: bool = True,
    posterior_predictive: bool = True,
    log_likelihood: bool = True,
    truth: Scene | None = None,
    of: Quantities = quantities.OF_SCENES,
    coords: Mapping[str, Sequence] = {},
    dims: Mapping[str, Sequence[str]] = {},
    attrs: Mapping[str, Any] = {},
    max_megabytes: float = 100.0,
    rows: int | None = None,
) -> Any:
    """The guide's posterior of images in ArviZ's form: InferenceData (ArviZ 0.x) or DataTree (1.x).

    ====================  ============================================================================
    posterior             latents by site, steps stacked; quantities of the scenes, which do not
                          depend on slots: read these first, as slots may switch labels between draws
    sample_stats          lp, log_q, log_weight (chain, draw, image); elbo, iwae, ess, khat (image), the
                          last three only where every latent is of an image alone
    posterior_predictive  replicates of the first images, and their quantities; observed_data has the
                          same of the images themselves. A program that observes something else of them,
                          such as counts, has replicates of that
    log_likelihood        log p(x | z), one number per image. Each image has latents of its own, so loo
                          on it is not the evidence: held-out iwae is
    prior                 latents and quantities of scenes from the program; prior_predictive. Left out
                          where the program takes no ``batch``, so that it cannot be called without images
    constant_data         quantities of the truth
    ====================  ============================================================================

    Latents are raw: absent slots hold the values that the guide drew for them.

    >>> from inference.runs import open_run
    >>> run = open_run("air-multi_mnist")
    >>> images = run.unseen(2).floats()
    >>> data = to_inference_data(run.program, run.guide, images, num_samples=25, prior=False)
    >>> data["posterior"].sizes["draw"], "n_objects" in data["posterior"]
    (25, True)

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        num_samples: draws per image.
        prior, posterior_predictive, log_likelihood: whether to make these groups.
        truth: the true Scene of the same images.
        of: quantities of Scenes by name.
        coords: dimension -> labels.
        dims: site -> names of the dimensions of one value of it.
        attrs: further attributes of the file, such as run, seed, step.
        max_megabytes: largest size of the arrays. The first images and replicates that fit are kept; a
            warning is given if images are left out.
        rows: draws of images a pass; as many as have `VALUES` if not given.
    Raises:
        ValueError: not even one image fits.
    """
    size, limit = images[0].numel() * images.element_size(), 1e6 * max_megabytes
    one = draw(program, guide, images[:1], 1)
    room = int(limit * BUDGET["posterior"] / (num_samples * _bytes(one)))
    if not room:
        raise ValueError(
            f"{num_samples} draws of an image take {num_samples * _bytes(one) / 1e6:.0f} MB of latents; "
            f"max_megabytes={max_megabytes} leaves {limit * BUDGET['posterior'] / 1e6:.0f}: raise it, or "
            "give a smaller num_samples"
        )
    if room < len(images):
        warnings.warn(
            f"kept the first {room} of {len(images)} images, to stay below {max_megabytes:g} MB; "
            "max_megabytes and num_samples decide how many",
            stacklevel=2,
        )
        images, truth = images[:room], truth[:room] if truth is not None else None
    fit = max(1, int(limit * BUDGET["pictures"] / (num_samples * size)))
    fit = min(fit, len(images)) if posterior_predictive else 0
    drawn = draw(program, guide, images, num_samples, of=of, pictures=fit, rows=rows)
    groups = posterior_groups(drawn, images, log_likelihood, coords, dims)
    if truth is not None:
        groups["constant_data"] = truth_group(quantities.measure(truth, of), coords)
    if prior and samples(program):
        number = min(num_samples, max(1, int(limit * BUDGET["prior"] / (size + _bytes(one)))))
        groups |= prior_groups(draw_prior(program, number, of=of), coords, dims)
    return container(groups, attributes(program, guide, attrs))


def _bytes(drawn: Draws) -> int:
    tables = drawn.latents, drawn.quantities, drawn.replicated
    return sum(t.numel() * t.element_size() for table in tables for t in table.values())


def dataset(
    variables: Mapping[str, tuple[Sequence[str], Tensor]],
    coords: Mapping[str, Sequence] = {},
    dims: Mapping[str, Sequence[str]] = {},
) -> xarray.Dataset:
    """A group: arrays with names for their dimensions, and a coordinate for each.

    Args:
        variables: name -> names of the leading dimensions, and the array. `dims` or `EVENTS` name the other
            dimensions; without a name they are NAME_dim_0 and so on.
        coords: dimension -> labels, of which the first ones are used; 0, 1, … by default.
        dims: name -> names of the last dimensions.
    Raises:
        ValueError: `dims` names more or fewer dimensions than a variable has left.
    """
    arrays: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    sizes: dict[str, int] = {}
    taken = {*SAMPLE, *PIXELS, *(dim for lead, _ in variables.values() for dim in lead)}
    for name, (lead, value) in variables.items():
        value = value.detach().cpu().numpy()
        rest = value.ndim - len(lead)
        free = written(name, {*taken, *arrays})
        unnamed = [f"{free}_dim_{i}" for i in range(rest)]
        last = dims.get(name, EVENTS.get(name, unnamed))
        if len(last) != rest:
            raise ValueError(
                f"dims[{name!r}]={list(last)} names {len(last)} dimensions; "
                f"{name} {value.shape} has {rest} after {list(lead)}"
            )
        named = (*lead, *last)
        arrays[free] = named, value
        sizes |= dict(zip(named, value.shape, strict=True))
    labels = {**COORDINATES, **coords}
    coordinates = {dim: labels.get(dim, np.arange(size))[:size] for dim, size in sizes.items()}
    return xarray.Dataset(arrays, coordinates)


def written(name: str, taken: Collection[str] = ()) -> str:
    """A variable's name for netCDF, with dots instead of the slashes of Pyro's scopes.

    Args:
        taken: names of dimensions and of other variables; one of these is called NAME_.
    """
    free = name.replace("/", ".")
    while free in taken:
        free += "_"
    return free


def stack_steps(drawn: Draws) -> dict[str, tuple[tuple[str, ...], Tensor]]:
    """Latents with names for the dimensions of their slots; steps z_what_1, z_what_2, … as one variable.

    Sites that some steps lack, as the background of ECON has no mask, stay apart.

    Returns:
        name -> names of the slots' dimensions, and (S, B, *slots, *event).
    """
    families: dict[str, list[str]] = {}
    for name in drawn.latents:
        stem, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()
        alone = number is None or drawn.plates[name] or name in drawn.shared
        families.setdefault(name if alone else stem, []).append(name)
    deepest = max((_level(p) for plates in drawn.plates.values() for p in plates), default=0)
    most = max(len(names) for names in families.values()) if families else 0
    variables = {}
    for stem, names in families.items():
        values = [drawn.latents[name] for name in names]
        if len(names) < max(2, most) or len({v.shape for v in values}) > 1:
            for name, value in zip(names, values, strict=True):
                variables[name] = tuple(_slot(p, deepest) for p in drawn.plates[name]), value
        else:
            slot = "object" if f"z_pres_{len(names)}" in drawn.latents else "step"
            variables[stem] = (slot,), torch.stack(values, 2)
    return variables


def _level(plate: str) -> int:
    """3 for ``nodes_3``, 0 for plates of another name."""
    found = re.fullmatch(r"nodes_(\d+)", plate)
    return int(found[1]) if found else 0


def _slot(plate: str, deepest: int) -> str:
    level = _level(plate)
    if level == 0:
        return written(plate, SAMPLE)
    if level == 1:
        return "object"
    return "part" if level == deepest else f"level_{level}"


def posterior_groups(
    drawn: Draws, images: Tensor, log_likelihood: bool, coords: Labels, dims: Dims
) -> dict[str, xarray.Dataset]:
    """Groups of the guide's draws for `images` (B, C, H, W), with their log-probabilities."""
    weights = drawn.log_weights
    stats = {"lp": drawn.log_p, "log_q": drawn.log_q, "log_weight": weights}
    bounds = {"elbo": weights.mean(0)}
    if not drawn.shared:
        bounds |= {"iwae": iwae(weights), "ess": ess(weights)}
        if len(weights) >= SHORTEST:
            bounds["khat"] = khat(weights)
    named = _named(stats, SAMPLE) | _named(bounds, SAMPLE[2:])
    groups = {"posterior": latents(drawn, coords, dims), "sample_stats": dataset(named, coords)}
    if log_likelihood:
        table = _named({"images": drawn.log_likelihood}, SAMPLE)
        groups["log_likelihood"] = dataset(table, coords)
    kept = drawn.observed[: drawn.pictures.shape[1]]
    if len(kept):
        groups["posterior_predictive"] = pictures(drawn, coords)
        observed = {n: quantities.OF_IMAGES[n](kept) for n in drawn.replicated}
        seen = (("image", *PIXELS), kept.movedim(1, -1)) if kept.ndim == 4 else (("image",), kept)
        groups["observed_data"] = dataset(_named(observed, ("image",)) | {"images": seen}, coords)
    return groups


def prior_groups(drawn: Draws, coords: Labels, dims: Dims) -> dict[str, xarray.Dataset]:
    """Groups of scenes and images that the program samples from its prior."""
    found = {"prior": latents(drawn, coords, dims), "prior_predictive": pictures(drawn, coords)}
    return {name: group.isel(image=0, drop=True) for name, group in found.items()}


def truth_group(truth: Mapping[str, Tensor], coords: Labels) -> xarray.Dataset:
    """Quantities (B, …) of the true scenes."""
    return dataset(_named(truth, ("image",)), coords)


def latents(drawn: Draws, coords: Labels, dims: Dims) -> xarray.Dataset:
    """Latents and quantities of scenes."""
    stacked = stack_steps(drawn).items()
    variables = {name: ((*SAMPLE, *slots), value[None]) for name, (slots, value) in stacked}
    for name in drawn.shared:  # one value for all images
        (*lead, _), (names, value) = SAMPLE, variables[name]
        variables[name] = (*lead, *names[len(SAMPLE) :]), value[:, :, 0]
    return dataset(variables | _named(drawn.quantities, SAMPLE), coords, dims)


def pictures(drawn: Draws, coords: Labels) -> xarray.Dataset:
    """Replicated images, and their quantities."""
    kept = drawn.pictures.shape[1]
    replicated = {name: value[:, :kept] for name, value in drawn.replicated.items()}
    images, names = drawn.pictures[None], SAMPLE
    if images.ndim == 6:
        images, names = images.movedim(3, -1), (*SAMPLE, *PIXELS)
    return dataset(_named(replicated, SAMPLE) | {"images": (names, images)}, coords)


def _named(table: Mapping[str, Tensor], lead: tuple[str, ...]) -> dict[str, tuple[tuple, Tensor]]:
    """Names for the leading dimensions; a chain is added where they have one."""
    return {
        name: (lead, value[None] if "chain" in lead else value) for name, value in table.items()
    }


def attributes(program: Any, guide: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Origin of a file: names, versions, the time (UTC), and `extra`."""
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "creation_library": "scene-programs",
        "inference_library": "pyro-ppl",
        "inference_library_version": version("pyro-ppl"),
        "torch_version": str(torch.__version__),
        "program": _name(program),
        "guide": _name(guide),
        "draws": "hard, independent, from the guide",
        **extra,
    }


def _name(part: Any) -> str:
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}.{named.__qualname__}"


def arviz() -> ModuleType:
    """The module ArviZ, without the announcement that its 0.x prints on import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return import_module("arviz")


def is_old() -> bool:
    """Whether the installed ArviZ is a 0.x."""
    return int(version("arviz").split(".")[0]) < 1


def container(groups: Mapping[str, xarray.Dataset], attrs: Mapping[str, Any]) -> Any:
    """ArviZ's container: InferenceData in 0.x, xarray's DataTree in 1.x."""
    if is_old():
        return arviz().InferenceData(attrs=dict(attrs), **groups)
    root = {"/": xarray.Dataset(attrs=dict(attrs))}
    return xarray.DataTree.from_dict(root | dict(groups))


def summary(data: Any, var_names: Sequence[str] | None = None) -> Any:
    """``az.summary`` of the posterior without the diagnostics of chains: draws are independent.

    Returns:
        A pandas DataFrame with one row per number.
    """
    return arviz().summary(data, var_names=var_names, kind="stats")
