"""Masks drawn one after another, and conversions of shares and opacities for encoders and renderers.

Shape legend: B images, K segments, C colours, D numbers of a latent, H x W pixels.
"""

from __future__ import annotations

import math

import pyro
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks.distributions import gaussian

LEAST_SHARE = math.log(1e-5)
"""Smallest log π in an encoder's input."""


def with_opacity(patches: Tensor) -> Tensor:
    """Colours and opacity (..., C + 1, h, w) whose product is `patches` (..., C, h, w) in [0, 1].

    A pixel is as opaque as its brightest channel; one channel alone is white.
    """
    opacity = patches.amax(-3, keepdim=True)
    colours = patches / opacity.clamp(min=torch.finfo(patches.dtype).tiny)
    return torch.cat([colours, opacity], -3)


def draw_masks(net: nn.Module, x: Tensor) -> Tensor:
    """(..., 1, K, D) of all segments, each given x (B, 1, units) and those before, by a net's LSTM and head."""
    c, seen = net.config, net.cell.look(x)
    mask, masks = x.new_zeros(*x.shape[:-1], c.z_bg_mask), []
    state = tuple(s.unsqueeze(1) for s in net.cell.start(len(x)))
    for k in range(1, c.components + 1):
        state = net.cell(seen, mask, tuple(s.expand(*mask.shape[:-1], -1) for s in state))
        mask = pyro.sample(f"z_bg_mask_{k}", gaussian(net.mask_head(state[0])))
        masks.append(mask)
    return torch.stack(masks, -2)


def break_stick(logits: Tensor) -> Tensor:
    """log π_k from the logits of s_k: (..., K - 1, H, W) -> (..., K, H, W), whose exponentials sum to 1."""
    left = F.pad(F.logsigmoid(-logits).cumsum(-3), (0, 0, 0, 0, 1, 0))
    return left + F.pad(F.logsigmoid(logits), (0, 0, 0, 0, 0, 1))


def with_shares(x: Tensor, log_shares: Tensor) -> Tensor:
    """The encoder's input for every segment: x (..., B, 1, C, H, W), with its log π (..., B, 1, K, H, W).

    Returns:
        (..., B, K, C + 1, H, W).
    """
    shares = log_shares.clamp(min=LEAST_SHARE).unsqueeze(-3).squeeze(-5)
    return torch.cat([x.expand(*shares.shape[:-3], *x.shape[-3:]), shares], -3)
