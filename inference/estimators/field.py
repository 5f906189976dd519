"""What two libraries of gradient estimators have, and what stands for it here.

Storchastic (HEmile/storchastic at c6801dd, August 2024): the exports of `storch.method`, the classes of
`storch.sampling`, and the list in its README. GenJAX (probcomp/genjax at b8a6b95, March 2026): the exports of
`genjax.adev`, and the options of its AIR in `examples/air`.

RODEO (Shi et al., 2022), which neither has, is left out: its control variates are discrete Stein operators,
with networks to fit. `double_cv` asks for the same slopes of the cost, and has three numbers to fit.
"""

from __future__ import annotations

from typing import NamedTuple


class Theirs(NamedTuple):
    """A method of another library."""

    names: tuple[str, ...]
    """as it is called there"""
    ours: tuple[str, ...]
    """names of `ESTIMATORS` that stand for it; none where a reason is all there is"""
    why: str
    """how they differ, or why there is none"""


PYRO = "Gaussians are always reparametrised, by Pyro's distributions"

STORCHASTIC = (
    Theirs(("Reparameterization",), (), PYRO),
    Theirs(
        ("ScoreFunction", "MovingAverageBaseline"),
        ("reinforce", "nvil"),
        "nvil's baseline has a running mean besides the network",
    ),
    Theirs(
        ("ScoreFunction with BatchAverageBaseline",), ("rloo",), "the leave-one-out mean of copies"
    ),
    Theirs(("Expect", "Enumerate"), ("enumerate", "expect"), "jointly, or site by site"),
    Theirs(("GumbelSoftmax",), ("gumbel", "gumbel_st"), ""),
    Theirs(
        ("GumbelSparseMax", "GumbelEntmax"),
        ("gumbel_sparsemax",),
        "entmax lies between softmax and sparsemax, and is left out",
    ),
    Theirs(("RELAX",), ("relax",), "the control variate is a network alone"),
    Theirs(("REBAR",), ("rebar",), ""),
    Theirs(("LAX",), (), f"is for continuous latents: {PYRO}"),
    Theirs(("ARM",), ("disarm",), "disarm is ARM's mean over what it draws more: never noisier"),
    Theirs(("DisARM",), ("disarm", "arms"), ""),
    Theirs(
        ("ScoreFunctionWOR", "SampleWithoutReplacement"),
        ("unordered",),
        "the unordered set is its mean over orders: never noisier",
    ),
    Theirs(("UnorderedSetEstimator", "UnorderedSet"), ("unordered",), ""),
    Theirs(
        ("UnorderedSetGumbelSoftmax", "GumbelSoftmaxWOR"),
        ("gumbel_rao",),
        "unpublished there; the mean of several relaxed points is gumbel_rao's",
    ),
    Theirs(("RaoBlackwellSF", "SumAndSample", "RaoBlackwellizedSample"), ("sum_and_sample",), ""),
    Theirs(("MonteCarlo",), ("rloo",), "several draws are copies of the image"),
    Theirs(
        ("ImportanceSampling", "ImportanceSampleDecoder"),
        ("iwae", "vimco", "rws"),
        "weights of whole samples",
    ),
    Theirs(
        ("MAPOSample",), (), "needs a memory of good samples per image; unfinished there (README)"
    ),
    Theirs(("SequenceDecoding", "MCDecoder", "IterDecoding"), (), "are decoders, not estimators"),
    Theirs(("Infer",), (), "chooses by the distribution; recipes choose here"),
)

GENJAX = (
    Theirs(
        ("flip_enum", "flip_enum_parallel", "categorical_enum_parallel"),
        ("expect", "enumerate"),
        "expect takes one site's element at a time, as flip_enum does of batches",
    ),
    Theirs(
        ("flip_mvd",),
        ("expect",),
        "of a coin the measure-valued derivative is the difference of both values, which expect takes",
    ),
    Theirs(
        ("flip_reinforce", "geometric_reinforce", "reinforce"),
        ("reinforce",),
        "nvil, rloo and tracegraph take any discrete distribution too",
    ),
    Theirs(("normal_reinforce", "uniform_reinforce", "multivariate_normal_reinforce"), (), PYRO),
    Theirs(
        (
            "normal_reparam",
            "uniform_reparam",
            "multivariate_normal_reparam",
            "multivariate_normal_diag_reparam",
        ),
        (),
        PYRO,
    ),
    Theirs(("AIR's estimator hybrid",), ("expect",), "which it is, coin by coin"),
    Theirs(("AIR's num_particles",), ("iwae", "dreg", "vimco"), "with any method: iwae:5+expect"),
)

FIELD = {"Storchastic": STORCHASTIC, "GenJAX": GENJAX}


def field() -> str:
    """The table of both libraries for a README."""
    lines = ["| there | here | |", "|---|---|---|"]
    for library, methods in FIELD.items():
        lines.append(f"| **{library}** | | |")
        for method in methods:
            theirs = ", ".join(f"`{name}`" if " " not in name else name for name in method.names)
            ours = ", ".join(f"`{name}`" for name in method.ours) or "none"
            lines.append(f"| {theirs} | {ours} | {method.why} |")
    return "\n".join(lines)
