"""Captured steps: none waits for the device or holds a number that changes, and giving up is clean.

A machine without CUDA can show that a step stays on one device (the meta device reads no number back), that
a recording of one step is right for every other, and that a capture that fails leaves no trace.
"""

import random
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training import train

from inference.estimators import ESTIMATORS, estimator
from inference.loading import own_programs
from inference.machine import capture, distributed
from inference.machine.capture import Constants, Step
from inference.plan import Run, plan
from inference.schedules import Linear, Until
from inference.trainer import Trainer

UNFIT = {
    ("gsgn", "enumerate"),
    ("discrete_air", "disarm"),
    ("discrete_air", "arms"),
    ("econ", "disarm"),
    ("econ", "arms"),
    ("econ", "enumerate"),
    ("econ", "expect"),
    ("econ", "sum_and_sample"),
    ("econ", "unordered"),
    ("denf", "enumerate"),
}
"""Refused before they train: too many values, a site of another kind."""
ORDERED = {(name, method) for name in ("air", "discrete_air") for method in ("sleep", "rws_sleep")}
"""Their orders of objects are as many as numbers of objects allow, so Python must read these."""
CONTINUOUS = {"convdraw", "genesis", "vae"}
"""Programs without discrete latents."""
SCHEDULES = {
    "learning_rate": Linear(0.001, 0.01, 4),
    "estimator.temperature": Linear(2.0, 0.5, 4),
    "weight.z_w*": Linear(0.1, 3.0, 4),
}


FEWER = {"air": ("steps=2",), "discrete_air": ("steps=2",), "econ": ("layers=2",)}
"""Settings that leave out steps and layers."""


@pytest.fixture(autouse=True)
def without_validation():
    """As in a training after its first steps."""
    pyro.enable_validation(False)


def small(name, device="cpu", **recipe):
    p = plan(tiny.run(name, "unused", batch=2, set=FEWER.get(name, ())))
    return replace(p, recipe=replace(p.recipe, **recipe), device=torch.device(device))


def begin(p):
    """A trainer, and images."""
    pyro.set_rng_seed(p.seed)
    program, guide = (m.to(p.device) for m in p.source.build(p.config))
    return over(program, guide, p), pictures(p)


def over(program, guide, p):
    gradients = estimator(p.recipe.estimator).to(p.device)
    with torch.no_grad():
        gradients.prepare(program, guide, pictures(p))
    return Trainer(p, program, guide, gradients)


def pictures(p, seed=0):
    shape = 2, getattr(p.config, "colours", 3), p.config.size, p.config.size
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(p.device)


# ---- a step stays on the device


class OneDevice(TorchDispatchMode):
    """Refuses what waits for a device, or brings a number to it. The meta device refuses to read numbers."""

    WAIT = ("multinomial", "nonzero", "_linalg_det", "linalg_lu", "masked_select", "_unique2")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, found)) if isinstance(t, Tensor)]
        devices, name = {t.device.type for t in tensors}, func.overloadpacket.__name__
        if len(devices) > 1 or ("meta" in devices and name in self.WAIT):
            raise AssertionError(
                f"{name} waits for the device, or mixes it with the host's tensors"
            )
        return found


class NoCopies(TorchFunctionMode):
    """Refuses a tensor on the device made of the host's numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        made = func in (torch.tensor, torch.as_tensor, Tensor.new_tensor)
        if made and found.device.type == "meta" and not isinstance(args[-1], Tensor):
            raise AssertionError(f"{func.__name__} copies {args[-1]} to the device")
        return found


def check_step(trainer, x):
    """The second step: what is made once is there by then."""
    trainer.optimiser.step = lambda: None  # torch's own has no meta kernel
    trainer.update(x)
    trainer.apply_schedules()
    with OneDevice(), NoCopies(), Constants():
        trainer.descend(x)


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.parametrize("name", own_programs())
def test_a_step_stays_on_the_device(name, method):
    continuous = name in CONTINUOUS
    text = method if continuous else tiny.OF_BOUNDS.get(method, method)
    p = small(name, "meta", estimator=text)
    if continuous and method not in tiny.OF_CONTINUOUS:
        with pytest.raises(ValueError, match="no latent is discrete"):
            begin(p)
    elif (name, method) in ORDERED:
        with pytest.raises(NotImplementedError, match="meta tensor"):
            check_step(*begin(p))
    elif (name, method) in UNFIT:
        with pytest.raises(ValueError, match=r"takes at most|(disarm|arms) is for Bernoulli"):
            begin(p)
    else:
        check_step(*begin(p))


@pytest.mark.parametrize("name", own_programs())
def test_a_step_of_the_papers_recipe_stays_on_the_device(name):
    p = plan(Run(f"programs/{name}.py", Path(), preset="paper", device="cpu"))
    check_step(*begin(replace(p, device=torch.device("meta"))))


class Plain(nn.Module):
    """x ~ N(w, σ²) under a latent z; `extra` is what a user might write into a program."""

    def __init__(self, extra):
        super().__init__()
        self.extra, self.w = extra, nn.Parameter(torch.zeros(1))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-1):
            z = pyro.sample("z_what", dist.Normal(torch.zeros_like(self.w), 0.5).expand([batch]))
            z = z + self.extra(self, z)
            mean = (z * self.w)[:, None, None, None].expand_as(images)
            pyro.sample("images", dist.Normal(mean, 0.3).to_event(3), obs=images)


class PlainGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)

    def forward(self, images, batch=1):
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z_what", dist.Normal(self.net(images[:, 0, 0, :1])[:, 0], 0.1))


def plain(extra, device="cpu"):
    p = small("air", device, schedules={"learning_rate": Linear(0.001, 0.01, 4)})
    pyro.set_rng_seed(0)
    program, guide = Plain(extra).to(device), PlainGuide().to(device)
    return over(program, guide, p), pictures(p)


def test_numbers_in_a_users_program_do_not_hinder():
    check_step(*plain(lambda self, z: torch.where(z > 0, z, 2.0), "meta"))


OFFENDERS = {
    "item": lambda self, z: z * self.w.item(),
    "condition": lambda self, z: z if z.sum() > 0 else -z,
    "constant": lambda self, z: z * torch.tensor([1.0, 2.0], device=z.device),
    "new_tensor": lambda self, z: z * z.new_tensor([1.0, 2.0]),
    "host": lambda self, z: z * torch.full((), 3.0),
    "moved": lambda self, z: z * torch.ones(2).to(z.device),
    "nonzero": lambda self, z: z + torch.nonzero(z).sum(),
    "choice": lambda self, z: z + z.softmax(-1).multinomial(1, True),
    "solve": lambda self, z: z + torch.linalg.det(z.new_ones(3, 3)),
}


@pytest.mark.parametrize("extra", OFFENDERS.values(), ids=OFFENDERS)
def test_what_cannot_be_captured_would_be_seen(extra):
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
        check_step(*plain(extra, "meta"))


# ---- one recording is right for every step


@pytest.mark.parametrize(("name", "method"), [
    ("gsgn", "gumbel"), ("air", "nvil"), ("air", "vimco"), ("discrete_air", "gumbel"),
])  # fmt: skip
def test_a_recorded_step_is_right_for_other_images_numbers_and_draws(name, method):
    p = small(name, estimator=method)
    p = replace(p, recipe=replace(p.recipe, schedules=p.recipe.schedules | SCHEDULES))
    trainer, x = begin(p)
    m = trainer.modules

    def gradients(x):
        loss, terms = m["estimator"](m["program"], m["guide"], x, trainer.objective)
        found = torch.autograd.grad(loss, trainer.learned, allow_unused=True)
        return [*terms.values(), *(g for g in found if g is not None)]

    trainer.update(x)
    recorded = make_fx(gradients, tracing_mode="real", _allow_non_fake_inputs=True)(x)
    trainer.step = 3
    trainer.update(pictures(p, seed=2))  # other weights, running means and schedules
    before = {key: module.state_dict() for key, module in m.items()}
    before = {key: {k: v.clone() for k, v in state.items()} for key, state in before.items()}
    results = []
    for step in (gradients, recorded, gradients):
        for key, module in m.items():
            module.load_state_dict(before[key])
        torch.manual_seed(5 + len(results) // 2)
        results.append(step(pictures(p, seed=1)))
    eager, replayed, other = results
    for a, b in zip(eager, replayed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert not same(eager, other)  # another seed would have shown


# ---- what is kept of a step, whether captured or not


@pytest.fixture
def on_cuda(monkeypatch):
    """Lets `Step` believe in a GPU; `record` is what a test puts there."""

    def make(trainer, record):
        monkeypatch.setattr(capture, "beside", lambda stream: nullcontext())
        monkeypatch.setattr(capture, "record", record)
        step = Step(trainer, eager=2)
        step.wanted = True
        return step

    return make


def state(trainer):
    found = [t.detach().clone() for m in trainer.modules.values() for t in m.state_dict().values()]
    moments = [t.clone() for s in trainer.optimiser.state.values() for t in s.values()]
    return [*found, *moments, torch.get_rng_state()]


def run(update, p, steps=6):
    losses = []
    for i in range(steps):
        loss, terms = update(pictures(p, seed=i))
        losses.append(torch.stack([loss, *terms.values()]).clone())
    return losses


def same(a, b):
    return len(a) == len(b) and all(
        map(torch.equal, map(torch.nan_to_num, a), map(torch.nan_to_num, b))
    )


def eager(p):
    trainer, _ = begin(p)
    return run(trainer.update, p), state(trainer)


def pretended(step, x, stream):
    """Memory that is written anew by every replay, and nothing is done before the first."""
    found = torch.zeros(()), {}

    def replay():
        loss, terms = step(x)
        found[0].copy_(loss)
        found[1].update({k: v.clone() for k, v in terms.items()})

    return replay, found


def test_replayed_steps_are_the_steps_of_a_training(on_cuda):
    p = small("air", schedules=SCHEDULES)
    losses, end = eager(p)
    trainer, _ = begin(p)
    step = on_cuda(trainer, pretended)
    assert same(run(step, p), losses) and same(state(trainer), end)
    assert step.replay is not None and trainer.step == 6


def test_images_of_another_number_are_not_replayed(on_cuda):
    p = small("air", schedules=SCHEDULES)
    trainer, _ = begin(p)
    step = on_cuda(trainer, pretended)
    run(step, p, 3)
    step(pictures(p)[:1])
    assert trainer.step == 4 and len(step.images) == 2


def test_a_capture_that_fails_leaves_no_trace(on_cuda, capsys):
    p = small("air", schedules=SCHEDULES)
    losses, end = eager(p)
    trainer, _ = begin(p)

    def fail(step, x, stream):
        assert all(group["capturable"] for group in trainer.optimiser.param_groups)
        trainer.optimiser.zero_grad()
        for parameter in trainer.learned:
            parameter.grad = torch.full_like(parameter, float("nan"))
        trainer.optimiser.state[nn.Parameter(torch.zeros(1))] = {"step": torch.zeros(())}
        trainer.modules["program"].sigma = torch.zeros(())
        torch.rand(3), random.random(), np.random.rand()
        raise RuntimeError("operation not permitted\nwhen a stream is capturing")

    step = on_cuda(trainer, fail)
    assert same(run(step, p), losses) and same(state(trainer), end)
    assert trainer.step == 6 and not step.wanted
    assert not any(group["capturable"] for group in trainer.optimiser.param_groups)
    line = "steps are not captured as a CUDA graph: operation not permitted\n"
    assert capsys.readouterr().out == line


def changed_buffer(self, z):
    self.mean = 0.9 * self.mean + 0.1 * z.mean().detach()
    return self.mean


@pytest.mark.parametrize(("extra", "words"), [
    (changed_buffer, "new tensor in a buffer's place"),
    (lambda self, z: torch.rand(()), "random numbers on the CPU"),
    (lambda self, z: random.random(), "random numbers on the CPU"),
    (lambda self, z: np.random.rand(), "random numbers on the CPU"),
])  # fmt: skip
def test_what_a_replay_would_not_repeat_is_not_captured(extra, words, on_cuda, capsys):
    """Here `record` runs `extra` alone: on a GPU nothing else would draw on the CPU."""
    trainer, _ = plain(lambda self, z: 0.0)

    def record(step, x, stream):
        extra(trainer.modules["program"], x)
        return (lambda: None), (torch.zeros(()), {})

    step = on_cuda(trainer, record)
    run(step, small("air"), 3)
    assert step.replay is None and not step.wanted and trainer.step == 3
    assert words in capsys.readouterr().out


def test_a_first_gradient_in_the_capture_is_refused(on_cuda, capsys):
    trainer, x = begin(small("air"))

    def record(step, x, stream):
        trainer.optimiser.state[trainer.learned[0]] = {}
        return (lambda: None), (torch.zeros(()), {})

    step = on_cuda(trainer, record)
    step.eager = 0
    step(x)
    assert "had its first gradient" in capsys.readouterr().out
    assert trainer.step == 1


def test_several_processes_are_told_why(monkeypatch, capsys):
    trainer, _ = begin(small("air"))
    monkeypatch.setattr(distributed, "world", lambda: 2)
    assert not Step(trainer).wanted and capsys.readouterr().out == ""  # a CPU
    trainer.device = torch.device("cuda")
    assert not Step(trainer, wanted=False).wanted and capsys.readouterr().out == ""
    assert not Step(trainer).wanted
    assert "not captured as a CUDA graph: several processes" in capsys.readouterr().out


def test_a_cpu_trains_without_a_word(tmp_path, capsys):
    train(tiny.run("gsgn", tmp_path, set=("train.capture=true",)))
    assert "captured" not in capsys.readouterr().out


def test_capture_is_switched_off_by_a_field():
    off = plan(Run("programs/air.py", Path(), device="cpu", set=("train.capture=false",)))
    on = plan(Run("programs/air.py", Path(), device="cpu"))
    assert on.recipe.capture is True and off.recipe.capture is False


# ---- the learning rate is a tensor, and a state with a number in its place is restored


def test_a_checkpoint_with_a_number_as_learning_rate_goes_on():
    p = small("air", schedules=SCHEDULES)
    trainer, x = begin(p)
    trainer.update(x)
    kept = deepcopy(trainer.state())
    for group in kept["optimiser"]["param_groups"]:
        group["lr"] = 0.5
    other, _ = begin(p)
    other.restore(kept)
    torch.manual_seed(1)
    trainer.update(x)
    torch.manual_seed(1)
    other.update(x)
    assert same(state(trainer)[:-1], state(other)[:-1])
    for group, rate in zip(other.optimiser.param_groups, other.rate.values(), strict=True):
        assert group["lr"] is rate
        assert float(rate) == SCHEDULES["learning_rate"](1)


def test_the_learning_rate_acts_as_a_number_does():
    """Bit for bit: float64 on a CPU."""
    p = small("air", schedules={"learning_rate": Linear(0.001, 0.01, 3)})
    trainer, _ = begin(p)
    other, _ = begin(p)
    for step in range(3):
        for t in (trainer, other):
            torch.manual_seed(step)
            for group, rate in zip(t.optimiser.param_groups, t.rate.values(), strict=True):
                group["lr"] = rate if t is trainer else p.recipe.schedules["learning_rate"](step)
            t.update(pictures(p, seed=step))
    assert same(state(trainer), state(other))


# ---- with a GPU


def cuda(p):
    return replace(p, device=torch.device("cuda"))


def follow(p, steps, wanted):
    """Losses, and where parameters went, in a training that captures, or does not."""
    trainer, _ = begin(p)
    start = [t.detach().clone() for t in trainer.learned]
    step = Step(trainer, wanted)
    losses = run(step, p, steps)
    assert (step.replay is not None) == wanted
    ways = [
        (t.detach() - before).flatten() for t, before in zip(trainer.learned, start, strict=True)
    ]
    return losses, torch.cat(ways)


def check_agreement(p):
    """By the whole way: rounding alone moves a parameter that has no gradient, as Adam divides by its size."""
    (losses, way), (eager_losses, eager_way) = (follow(p, 10, wanted) for wanted in (True, False))
    for a, b in zip(losses, eager_losses, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
    assert (way - eager_way).norm() < 0.05 * eager_way.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", own_programs())
@pytest.mark.parametrize("changed", [{}, SCHEDULES], ids=["recipe", "schedules"])
def test_captured_and_eager_steps_agree(name, changed):
    p = cuda(small(name))
    p = replace(p, recipe=replace(p.recipe, schedules=p.recipe.schedules | changed))
    check_agreement(p)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["nvil", "rloo", "relax", "disarm", "enumerate", "vimco", "rws"])
def test_every_estimator_is_captured(method):
    check_agreement(cuda(small("air", estimator=method)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_learning_rate_of_nothing_moves_nothing_in_replays():
    p = cuda(small("air", schedules={"learning_rate": Until(0.01, 6, after=0.0)}))
    trainer, _ = begin(p)
    step = Step(trainer)
    run(step, p, 5)
    moving = [t.detach().clone() for t in trainer.learned]
    run(step, p, 1)
    assert not all(map(torch.equal, moving, trainer.learned))
    still = [t.detach().clone() for t in trainer.learned]
    run(step, p, 3)
    assert step.replay is not None and all(map(torch.equal, still, trainer.learned))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_training_is_resumed():
    p = cuda(small("air", schedules=SCHEDULES))
    trainer, _ = begin(p)
    step = Step(trainer)
    run(step, p, 6)
    kept = deepcopy(trainer.state())
    ahead = run(step, p, 6)
    other, _ = begin(p)
    other.restore(kept)
    again = Step(other)
    for a, b in zip(ahead, run(again, p, 6), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
    assert again.replay is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["item", "condition", "constant", "moved", "nonzero"])
def test_a_step_that_waits_trains_eagerly_after_its_capture_failed(name, capsys):
    trainer, x = plain(OFFENDERS[name], "cuda")
    step = Step(trainer)
    for _ in range(8):
        loss, _ = step(x)
    assert step.replay is None and trainer.step == 8 and bool(loss.isfinite())
    assert capsys.readouterr().out.count("not captured as a CUDA graph") == 1
    assert torch.rand(4, device="cuda").isfinite().all()
    trainer, x = begin(cuda(small("air")))  # and others can be captured after
    step = Step(trainer)
    for _ in range(6):
        step(x)
    assert step.replay is not None
