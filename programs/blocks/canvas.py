"""Place patches on their parent's canvas and composite them, in one pass each way, compiled by numba.

`compose` says what is computed. Only pixels that a patch covers are read and written, and nothing but the
canvas and its weights is kept for the gradient.

Shape legend: M parents, K children of each, C channels whose last is the mask, S x S pixels of the canvas,
h x w of a patch.
"""

from __future__ import annotations

import math

import numpy as np

from programs.blocks.compiled import compiled, inlined

CHANNELS = 4
"""C, which the compiler must know."""
EMPTY = 1e-8
"""Weight of "nobody is here" at every pixel."""


@compiled
def span(slope: float, start: float, size: int, low: int, high: int) -> tuple[int, int]:
    """Of pixels `low` to `high` - 1 those at which -1 < slope · i + start < size, or one more on each side."""
    if abs(slope) < 1e-12:
        return (low, high) if -1 < start < size else (low, low)
    one, other = (-1 - start) / slope, (size - start) / slope
    first, last = math.floor(min(one, other)), math.ceil(max(one, other)) + 1
    return int(max(low, min(first, high))), int(min(high, max(last, low)))


@compiled
def lines(matrix: np.ndarray, size: int, height: int, width: int) -> np.ndarray:
    """(6,) q: pixel (i, j) of the canvas is column q₀ i + q₁ j + q₂ and row q₃ i + q₄ j + q₅ of a patch."""
    found = np.empty(6, matrix.dtype)
    for row, side in ((0, width), (1, height)):
        across, down = matrix[row, 0] / size * side, matrix[row, 1] / size * side
        corner = matrix[row, 2] - (matrix[row, 0] + matrix[row, 1]) * (1 - 1 / size)
        found[3 * row], found[3 * row + 1] = across, down
        found[3 * row + 2] = ((corner + 1) * side - 1) / 2
    return found


@compiled
def framed(patch: np.ndarray, frame: np.ndarray) -> None:
    """Copy a patch (C, h, w) into the middle of (h + 2, w + 2, C), whose rim is zero."""
    channels, height, width = patch.shape
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                frame[y + 1, x + 1, c] = patch[c, y, x]


@compiled
def composed(
    patches: np.ndarray,
    inverse: np.ndarray,
    pres: np.ndarray,
    opacity: np.ndarray,
    shown: np.ndarray,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Canvases (M, C, S, S), and the weights (M, S, S) that they were divided by.

    Args:
        patches: (M, K, C, h, w).
        inverse: (M, K, 2, 3) from the canvas to the patch; where a number is not finite, nothing is drawn.
        pres: (M, K) factors of what is drawn.
        opacity: (M, K) factors of the masks in the weights.
        shown: (M, K) which children are drawn at all.
        size: S.
    """
    parents, children, channels, height, width = patches.shape
    out = np.empty((parents, channels, size, size), patches.dtype)
    weights = np.empty((parents, size, size), patches.dtype)
    canvas = np.empty((size, size, channels), patches.dtype)
    frame = np.zeros((height + 2, width + 2, channels), patches.dtype)
    for m in range(parents):
        canvas[:] = 0
        weights[m] = EMPTY
        for k in range(children):
            q = lines(inverse[m, k], size, height, width)
            if not (shown[m, k] and np.isfinite(q.sum())):
                continue
            framed(patches[m, k], frame)
            draw(canvas, weights[m], frame, q, pres[m, k], opacity[m, k])
        for c in range(channels):
            for j in range(size):
                for i in range(size):
                    out[m, c, j, i] = canvas[j, i, c] / weights[m, j, i]
    return out, weights


@inlined
def between(above: np.ndarray, below: np.ndarray, c: int, right: float, low: float) -> float:
    """Channel c between four pixels, two of each row (2, C), `right` and `low` of the way from the first."""
    one = above.dtype.type(1)
    top = (one - right) * above[0, c] + right * above[1, c]
    return (one - low) * top + low * ((one - right) * below[0, c] + right * below[1, c])


@compiled
def draw(
    canvas: np.ndarray,
    weights: np.ndarray,
    frame: np.ndarray,
    q: np.ndarray,
    pres: float,
    opacity: float,
) -> None:
    """Add one child to a canvas (S, S, C) and its weights (S, S)."""
    size, number = canvas.shape[0], frame.dtype.type
    height, width = frame.shape[0] - 2, frame.shape[1] - 2
    for j in range(size):
        across, down = q[1] * number(j) + q[2], q[4] * number(j) + q[5]
        start, end = span(q[0], across, width, 0, size)
        start, end = span(q[3], down, height, start, end)
        for i in range(start, end):
            x, y = q[0] * number(i) + across, q[3] * number(i) + down
            if not (-1 < x < width and -1 < y < height):
                continue
            left, top = math.floor(x), math.floor(y)
            right, low = x - number(left), y - number(top)
            above, below = frame[top + 1, left + 1 :], frame[top + 2, left + 1 :]
            weight = opacity * between(above, below, CHANNELS - 1, right, low)
            weights[j, i] += weight
            for c in range(CHANNELS):
                canvas[j, i, c] += pres * weight * between(above, below, c, right, low)


@compiled
def gradients(
    patches: np.ndarray,
    inverse: np.ndarray,
    pres: np.ndarray,
    opacity: np.ndarray,
    shown: np.ndarray,
    out: np.ndarray,
    weights: np.ndarray,
    gradient: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients by patches, inverse, pres and opacity, given that by the canvases `composed`."""
    parents, children, channels, height, width = patches.shape
    size = out.shape[-1]
    d_patches, d_inverse = np.zeros_like(patches), np.zeros_like(inverse)
    d_pres, d_opacity = np.zeros_like(pres), np.zeros_like(opacity)
    d_canvas = np.empty((size, size, channels + 1), patches.dtype)
    frame = np.zeros((height + 2, width + 2, channels), patches.dtype)
    d_frame = np.empty_like(frame)
    for m in range(parents):
        through(d_canvas, out[m], weights[m], gradient[m])
        for k in range(children):
            q = lines(inverse[m, k], size, height, width)
            if not (shown[m, k] and np.isfinite(q.sum())):
                continue
            framed(patches[m, k], frame)
            d_frame[:] = 0
            d_q = np.zeros_like(q)
            d_pres[m, k], d_opacity[m, k] = undraw(
                d_canvas, frame, d_frame, q, d_q, pres[m, k], opacity[m, k]
            )
            unframed(d_patches[m, k], d_frame)
            unlines(d_inverse[m, k], d_q, size, height, width)
    return d_patches, d_inverse, d_pres, d_opacity


@compiled
def through(d_canvas: np.ndarray, out: np.ndarray, weights: np.ndarray, d_out: np.ndarray) -> None:
    """Write the gradient by a canvas (S, S, C + 1), and last by its weights, given that by their ratio."""
    size = weights.shape[0]
    for j in range(size):
        for i in range(size):
            share = 1 / weights[j, i]
            total = d_out[0, j, i] * out[0, j, i]
            for c in range(1, CHANNELS):
                total += d_out[c, j, i] * out[c, j, i]
            for c in range(CHANNELS):
                d_canvas[j, i, c] = d_out[c, j, i] * share
            d_canvas[j, i, CHANNELS] = -total * share


@compiled
def undraw(
    d_canvas: np.ndarray,
    frame: np.ndarray,
    d_frame: np.ndarray,
    q: np.ndarray,
    d_q: np.ndarray,
    pres: float,
    opacity: float,
) -> tuple[float, float]:
    """Add to the gradients by a child's frame and lines; returns those by its presence and opacity."""
    size, number = d_canvas.shape[0], frame.dtype.type
    height, width = frame.shape[0] - 2, frame.shape[1] - 2
    d_pres, d_opacity = number(0), number(0)
    for j in range(size):
        across, down = q[1] * number(j) + q[2], q[4] * number(j) + q[5]
        start, end = span(q[0], across, width, 0, size)
        start, end = span(q[3], down, height, start, end)
        for i in range(start, end):
            x, y = q[0] * number(i) + across, q[3] * number(i) + down
            if not (-1 < x < width and -1 < y < height):
                continue
            of_pres, of_opacity, d_x, d_y = unpaint(
                d_canvas[j, i], frame, d_frame, x, y, pres, opacity
            )
            d_pres += of_pres
            d_opacity += of_opacity
            d_q[0] += d_x * number(i)
            d_q[1] += d_x * number(j)
            d_q[2] += d_x
            d_q[3] += d_y * number(i)
            d_q[4] += d_y * number(j)
            d_q[5] += d_y
    return d_pres, d_opacity


@inlined
def unpaint(
    d_pixel: np.ndarray,
    frame: np.ndarray,
    d_frame: np.ndarray,
    x: float,
    y: float,
    pres: float,
    opacity: float,
) -> tuple[float, float, float, float]:
    """Add to the gradient by a frame, of one pixel; returns those by presence, opacity, column and row."""
    number = frame.dtype.type
    left, top = math.floor(x), math.floor(y)
    right, low = x - number(left), y - number(top)
    above, below = frame[top + 1, left + 1 :], frame[top + 2, left + 1 :]
    d_above, d_below = d_frame[top + 1, left + 1 :], d_frame[top + 2, left + 1 :]
    mask, shown = between(above, below, CHANNELS - 1, right, low), number(0)
    for c in range(CHANNELS):
        shown += d_pixel[c] * between(above, below, c, right, low)
    weight, d_weight = opacity * mask, pres * shown + d_pixel[CHANNELS]
    rest, high, d_x, d_y = number(1) - right, number(1) - low, number(0), number(0)
    for c in range(CHANNELS):
        d = pres * weight * d_pixel[c]
        if c == CHANNELS - 1:
            d += d_weight * opacity
        d_x += d * (high * (above[1, c] - above[0, c]) + low * (below[1, c] - below[0, c]))
        d_y += d * (rest * (below[0, c] - above[0, c]) + right * (below[1, c] - above[1, c]))
        d_above[0, c] += high * rest * d
        d_above[1, c] += high * right * d
        d_below[0, c] += low * rest * d
        d_below[1, c] += low * right * d
    return weight * shown, d_weight * mask, d_x, d_y


@compiled
def unframed(d_patch: np.ndarray, d_frame: np.ndarray) -> None:
    """The gradient by a patch, given that by its frame."""
    channels, height, width = d_patch.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                d_patch[c, y, x] = d_frame[y + 1, x + 1, c]


@compiled
def unlines(d_matrix: np.ndarray, d_q: np.ndarray, size: int, height: int, width: int) -> None:
    """The gradient by a matrix (2, 3), given that by its `lines`."""
    for row, side in ((0, width), (1, height)):
        corner = d_q[3 * row + 2] * side / 2
        for axis in (0, 1):
            slope = d_q[3 * row + axis] / size * side
            d_matrix[row, axis] = slope - corner * (1 - 1 / size)
        d_matrix[row, 2] = corner
