"""Three colours with a heavy tail, by the inverse autoregressive flow of `AutoIAFNormal`."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoIAFNormal


def model(images):
    colour = pyro.sample("colour", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    spread = pyro.sample("spread", dist.Gamma(2.0, 4.0))
    with pyro.plate("shots", len(images)):
        fn = dist.StudentT(4.0, colour[:, None, None], spread + 0.1).expand([3, 16, 16])
        pyro.sample("image", fn.to_event(3), obs=images)


guide = AutoIAFNormal(model, hidden_dim=[16])
