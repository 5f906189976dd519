"""Precision, layout and compilation of networks: what they change, and what they must not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import build, cases
from torch import nn
from training import equal, small, train, weights

from inference import checkpoint
from inference.estimators import estimator
from inference.machine import networks
from inference.plan import Run, plan
from inference.svi import main
from inference.trainer import Trainer

SWITCHES = {
    "bf16": ("train.precision=bf16",),
    "channels_last": ("train.layout=channels_last",),
    "compile": ("train.compile=true",),
    "all": ("train.precision=bf16", "train.layout=channels_last", "train.compile=true"),
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Compilation without code: as much of it as a program can break."""
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda m: compiled(m, backend="eager"))


@pytest.mark.parametrize("case", list(cases()), ids="-".join)
def test_every_linear_map_and_convolution_is_in_one_network(case):
    pair = nn.ModuleList(build(*case))
    found = list(networks.find(pair))
    inside = [m for network in found for m in network.modules()]
    layers = [m for m in pair.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert layers and len(inside) == len(set(inside)) and set(layers) <= set(inside)
    assert not any(isinstance(network, nn.ModuleList) for network in found)


def test_what_is_not_a_network_is_left_alone():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.act = nn.LSTMCell(3, 4), nn.CELU()
            self.parts = nn.ModuleDict(
                {"a": nn.Linear(2, 2), "b": nn.ModuleList([nn.Linear(2, 2)])}
            )

    own = Own()
    assert list(networks.find(own)) == [own.parts["a"], own.parts["b"][0]]


def test_bf16_is_inside_networks_and_while_they_train():
    net = nn.Sequential(nn.Linear(64, 64), nn.CELU(), nn.Linear(64, 3))
    x, seen = torch.randn(5, 64), []
    plain = net(x)
    networks.prepare([net], "bf16", "contiguous", False)
    net[0].register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    half = net(x)
    assert seen == [torch.bfloat16] and half.dtype == torch.float32
    assert not torch.equal(half, plain)
    torch.testing.assert_close(half, plain, rtol=0.05, atol=0.05)
    half.sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in net.parameters())
    net.eval()
    assert torch.equal(net(x), plain)


def test_channels_last_is_how_convolutions_keep_their_weights():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.CELU())
    networks.prepare([net], "float32", "channels_last", False)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not net[0].weight.is_contiguous()


def test_compilation_is_of_the_network_in_place():
    net = nn.Sequential(nn.Linear(2, 2))
    names, x = list(net.state_dict()), torch.randn(3, 2)
    plain = net(x)
    networks.prepare([net], "float32", "contiguous", True)
    assert net._compiled_call_impl is not None and list(net.state_dict()) == names
    torch.testing.assert_close(net(x), plain)


def test_by_default_nothing_is_touched():
    recipe = plan(Run("programs/air.py", Path(), device="cpu")).recipe
    assert (recipe.precision, recipe.layout, recipe.compile) == ("float32", "contiguous", False)
    net = nn.Linear(2, 2)
    networks.prepare([net], "float32", "contiguous", False)
    assert "forward" not in vars(net) and net._compiled_call_impl is None


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, when it compiles autocast
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_a_run_goes_on_under_other_switches(tmp_path, switches):
    """Base, switched, base again: the same checkpoint all along, and nearly the same weights."""
    where = replace(small(tmp_path / "run", steps=3), resume=True)
    train(where)
    train(replace(where, steps=5, set=switches))
    kept = checkpoint.load(tmp_path / "run" / "checkpoint.ckpt")
    moments = kept["optimiser"]["state"]
    assert kept["step"] == 5 and all(s["exp_avg"].dtype == torch.float32 for s in moments.values())
    train(replace(where, steps=7))
    train(replace(where, out=tmp_path / "base", steps=7))
    mine, base = weights(tmp_path / "run"), weights(tmp_path / "base")
    exact = "train.precision=bf16" not in switches
    assert mine.keys() == base.keys() and (exact or not equal(mine, base))
    for name, value in base.items():
        torch.testing.assert_close(
            mine[name], value, rtol=0, atol=1e-5 if exact else 5e-3, equal_nan=True, msg=name
        )


def test_moments_lie_as_their_weights_do(tmp_path):
    """A fused Adam reads both as they lie in memory."""
    out = train(small(tmp_path / "run", steps=3))
    p = plan(small(tmp_path, set=("train.layout=channels_last",)))
    modules = p.source.build(p.config)
    networks.prepare(modules, "float32", "channels_last", False)
    trainer = Trainer(p, *modules, estimator("gumbel"))
    state = checkpoint.load(out / "checkpoint.ckpt")
    trainer.restore(state)
    parameters = [p for group in trainer.optimiser.param_groups for p in group["params"]]
    assert any(not p.is_contiguous() for p in parameters)
    for index, parameter in enumerate(parameters):
        moment = trainer.optimiser.state[parameter]["exp_avg"]
        assert moment.stride() == parameter.stride()
        assert torch.equal(moment, state["optimiser"]["state"][index]["exp_avg"])


@pytest.mark.parametrize(("setting", "words"), [
    ("train.precision=fp8", ["unknown train.precision 'fp8'", "float32, bf16, auto"]),
    ("train.layout=tiled", ["unknown train.layout 'tiled'", "contiguous, channels_last, auto"]),
    ("train.compile=often", ["compile='often' is str", "expected bool"]),
    ("train.capture=2", ["capture=2 is int", "expected bool"]),
])  # fmt: skip
def test_unknown_values_are_refused(setting, words, tmp_path, capsys):
    assert main(["programs/gsgn.py", "--set", setting, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and all(word in error for word in words)


def test_a_program_without_networks_says_so():
    with pytest.raises(
        ValueError, match=r"train\.precision=bf16, train\.compile=True is for torch's"
    ):
        networks.prepare([nn.CELU()], "bf16", "contiguous", True)
