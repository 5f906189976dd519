"""The ray tracer, against rays that are marched towards solids given by distances."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from programs.worlds.made_of import studio, tracer
from programs.worlds.made_of.tracer import (
    BALL,
    BOX,
    CONE,
    CYLINDER,
    PRISM,
    SHAPES,
    Camera,
    Lamps,
    Solids,
)

SIZE = 48
HALF = {
    BALL: (0.9, 0.6, 0.4),
    BOX: (0.7, 0.5, 0.4),
    CYLINDER: (0.6, 0.6, 0.8),
    CONE: (0.8, 0.8, 0.7),
    PRISM: (0.9, 0.9, 0.5),
}


def below(shape, half, p):
    """A lower bound of the distance from p (..., 3) to a solid in its own directions, 0 on its surface."""
    x, y, z = np.moveaxis(p, -1, 0)
    r, _, h = half
    flat, out = np.hypot(x, y), abs(z) - h
    if shape == BALL:
        return (np.linalg.norm(p / half, axis=-1) - 1) * min(half)
    if shape == BOX:
        return (abs(p) - half).max(-1)
    if shape == CYLINDER:
        return np.maximum(flat - r, out)
    if shape == CONE:
        return np.maximum(-z - h, (2 * h * flat + r * (z - h)) / math.hypot(r, 2 * h))
    sides = [x * math.sin(w) + y * math.cos(w) for w in (math.pi, math.pi / 3, -math.pi / 3)]
    return np.maximum(np.maximum.reduce(sides) - r / 2, out)


def march(shape, half, turn, centre, eye, rays):
    """How far the unit rays (..., 3) go until they meet a solid; inf where they do not."""
    o, d = (eye - centre) @ turn, rays @ turn
    t = np.zeros(rays.shape[:-1])
    for _ in range(1500):
        t = np.minimum(t + below(shape, half, o + t[..., None] * d), 50)
    met = below(shape, half, o + t[..., None] * d) < 1e-4
    return np.where(met & (t < 49), t, np.inf)


def camera(batch=1, eye=(5.0, -4.0, 4.0), target=(0.0, 0.0, 0.5), field=0.3):
    eye, target = (torch.tensor(p, dtype=torch.float64).expand(batch, 3) for p in (eye, target))
    return Camera(eye, target, field)


def rays(view, size):
    """(S, S, 3) unit rays through the pixels' middles, from what a camera is."""
    eye, target = view.eye[0].numpy(), view.target[0].numpy()
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    down = np.cross(ahead, right)
    at = ((np.arange(size) + 0.5) / size * 2 - 1) * view.field
    d = ahead + at[None, :, None] * right + at[:, None, None] * down
    return eye, d / np.linalg.norm(d, axis=-1, keepdims=True)


def rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def solids(shapes, turns, centres, metal=False):
    """A scene of solids with the half-widths above."""
    linear = np.stack([turn * HALF[s] for s, turn in zip(shapes, turns, strict=True)])
    frame = torch.from_numpy(np.concatenate([linear, np.array(centres)[..., None]], -1))[None]
    n = len(shapes)
    colour = torch.full((1, n, 3), 0.5, dtype=torch.float64)
    return Solids(torch.tensor([shapes]), frame, colour, torch.full((1, n), metal))


@pytest.mark.parametrize("shape", range(5), ids=SHAPES)
def test_rays_meet_a_solid_where_marching_does(shape):
    """Distances at every pixel, whatever the rotation; and no pixel more or fewer but at the rim."""
    view = camera()
    eye, d = rays(view, SIZE)
    for seed in range(3):
        turn, centre = rotation(seed), np.array([0.1, -0.2, 0.9])
        labels, distance = tracer.see(solids([shape], [turn], [centre]), view, SIZE)
        expected = march(shape, HALF[shape], turn, centre, eye, d)
        met = labels[0].numpy() == 0
        assert met.sum() > 50 and (met != np.isfinite(expected)).sum() <= 3
        both = met & np.isfinite(expected)
        assert abs(distance[0].numpy()[both] - expected[both]).max() < 2e-3
        assert np.isinf(distance[0].numpy()[~met]).all()


@pytest.mark.parametrize("shape", range(5), ids=SHAPES)
def test_normals_are_gradients_of_the_distance(shape):
    view, turn, centre = camera(), rotation(5), np.array([0.0, 0.1, 0.8])
    scene = solids([shape], [turn], [centre])
    things, _, eye = next(tracer._scenes(scene, view))
    _, d = rays(view, 24)
    depth, first = tracer._cast(things, eye, 24)
    count = 0
    for i, j in zip(*(first == 0).nonzero(), strict=True):
        ray = tuple(d[i, j] / (d[i, j] @ eye.axes[2]))
        p, n = tracer._meet(things, tuple(eye.place), ray, depth[i, j], 0)
        at = lambda p: below(shape, HALF[shape], (np.array(p) - centre) @ turn)
        steps = 1e-5 * np.eye(3)
        slope = np.array([at(p + s) - at(p - s) for s in steps]) / 2e-5
        if abs(np.linalg.norm(slope) - 1) > 1e-3 and shape != BALL:
            continue  # on an edge
        count += 1
        assert np.allclose(n, slope / np.linalg.norm(slope), atol=1e-3)
        assert np.dot(n, ray) < 0
    assert count > 20


def several(seed=0, metal=False):
    """All five kinds beside and behind each other, upright."""
    shapes = [BALL, BOX, CYLINDER, CONE, PRISM]
    random = np.random.default_rng(seed)
    turns, centres = [], []
    for shape in shapes:
        w = random.uniform(0, 2 * math.pi)
        turns.append(
            np.array([[math.cos(w), -math.sin(w), 0], [math.sin(w), math.cos(w), 0], [0, 0, 1]])
        )
        centres.append([*random.uniform(-1.5, 1.5, 2), HALF[shape][2]])
    return shapes, turns, centres, solids(shapes, turns, centres, metal)


@pytest.mark.parametrize("seed", range(4))
def test_every_pixel_shows_what_is_nearest(seed):
    shapes, turns, centres, scene = several(seed)
    view = camera()
    eye, d = rays(view, SIZE)
    all_of = zip(shapes, turns, centres, strict=True)
    far = np.stack([march(s, HALF[s], w, np.array(c), eye, d) for s, w, c in all_of])
    expected = np.where(np.isfinite(far.min(0)), far.argmin(0), -1)
    labels, _ = tracer.see(scene, view, SIZE)
    assert (labels[0].numpy() != expected).mean() < 0.005
    assert len(np.unique(expected)) >= 5


@pytest.mark.parametrize("shape", range(5), ids=SHAPES)
def test_boxes_are_those_of_the_whole_projection(shape):
    """Against what a fine picture shows of the solid alone: to a pixel of 400."""
    view = camera(field=0.25)
    for seed in range(4):
        scene = solids([shape], [rotation(seed)], [[0.0, 0.0, 0.8]])
        labels, _ = tracer.see(scene, view, 400)
        rows, columns = ((labels[0] == 0).any(k).nonzero()[:, 0] for k in (1, 0))
        edges = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 200 - 1
        box = tracer.boxes(scene, view)[0, 0]
        assert (box[:2] <= edges[:2] + 1 / 200).all() and (box[2:] >= edges[2:] - 1 / 200).all()
        # a corner may end in something thinner than a pixel
        assert (box - edges).abs().max() < 4 / 200


def test_boxes_reach_beyond_the_image():
    view = camera(field=0.05)
    box = tracer.boxes(solids([BALL], [np.eye(3)], [[0.0, 0.0, 0.5]]), view)[0, 0]
    assert box[0] < -1 and box[1] < -1 and box[2] > 1 and box[3] > 1


def test_what_is_unprojected_shows_where_it_was_taken_from():
    view = camera()
    point = torch.rand(1, 20, 2, dtype=torch.float64) - 0.5
    place = tracer.unproject(view, point, torch.full((1, 20), 0.3, dtype=torch.float64))
    assert torch.allclose(place[..., 2], torch.tensor(0.3, dtype=torch.float64))
    local = (view.axes @ (place - view.eye[:, None]).mT).mT
    assert torch.allclose(local[..., :2] / local[..., 2:] / view.field, point)


def lamp(*place, radius=0.3, power=20.0):
    table = torch.tensor([[place]], dtype=torch.float64)
    return Lamps(table, torch.tensor([radius]).double(), torch.tensor([power]).double())


def test_the_floor_is_lit_as_the_formula_says():
    """albedo (ambient + power cos cos / d²), then sRGB; the image is symmetric as lamp and camera are."""
    view, light = camera(eye=(0.0, -6.0, 6.0), target=(0.0, 0.0, 0.0)), lamp(0.0, 1.0, 5.0)
    one = solids([BALL], [np.eye(3)], [[0.0, 0.0, 0.0]])
    empty = replace(one, shape=torch.full((1, 1), -1))
    image = tracer.picture(empty, view, light, 32)[0]
    eye, d = rays(view, 32)
    p = eye - d * (eye[2] / d[..., 2])[..., None]
    to = np.array([0.0, 1.0, 5.0]) - p
    far = np.linalg.norm(to, axis=-1)
    cos, leaves = to[..., 2] / far, (to @ np.array([0.0, 1.0, 5.0])) / far / math.sqrt(26)
    linear = tracer.FLOOR * (tracer.AMBIENT + 20 * cos * leaves.clip(0) / far**2)
    assert linear.min() > 0.05 and linear.max() < 1
    expected = 1.055 * linear ** (1 / 2.4) - 0.055
    assert abs(image.numpy() - expected).max() < 1e-5
    assert torch.allclose(image, image.flip(-1), atol=1e-6)


def test_a_shadow_is_as_dark_as_the_share_of_the_lamp_that_is_hidden():
    """Behind an edge half of the lamp is hidden; deep in shadow all of it; elsewhere nothing."""
    half = torch.tensor([[3.0, 0.05, 1.0]], dtype=torch.float64)
    frame = tracer.upright(half * torch.tensor([0, 0, 1]), half, torch.zeros(1).double())
    wall = replace(solids([BOX], [np.eye(3)], [[0.0, 0.0, 1.0]]), frame=frame[None])
    light = lamp(0.0, -4.0, 4.0, radius=0.3)
    things, _, _ = next(tracer._scenes(wall, camera()))
    rest = (a[0] for a in tracer._discs(light))
    lights = tracer.Lights(light.place[0].numpy(), *rest, light.radius.numpy(), light.power.numpy())

    def seen(y, z=0.0):
        p, to = (0.0, y, z), (0.0, -4.0 - y, 4.0 - z)
        return tracer._unshadowed(things, lights, 0, p, to, -1, 60, 0.0)

    edge = (
        0.05 + 2 * 4.05 / 2
    )  # where the line from the lamp's middle over the wall's top meets the floor
    assert seen(0.5) == 0 and seen(-1.0) == 1 and seen(6.0) == 1
    assert seen(0.06, 1.93) == 0  # with the wall's middle behind
    assert abs(seen(edge) - 0.5) < 0.06
    shares = [seen(y) for y in np.linspace(0.5, 6, 30)]
    assert shares == sorted(shares) and len(set(shares)) > 4


def test_metal_mirrors_what_stands_beside_it():
    """A grey metal box before a red ball has red in it, one of rubber none."""
    shapes, turns = [BOX, BALL], [np.eye(3), np.eye(3)]
    scene = solids(shapes, turns, [[0.0, 0.0, 0.4], [0.9, -1.0, 0.4]])
    colour = torch.tensor([[[0.5, 0.5, 0.5], [0.9, 0.05, 0.05]]], dtype=torch.float64)
    redness = []
    for metal in (False, True):
        both = Solids(scene.shape, scene.frame, colour, torch.tensor([[metal, False]]))
        image = tracer.picture(both, camera(), lamp(4.0, -4.0, 6.0, power=40.0), 64)
        box = tracer.see(both, camera(), 64)[0] == 0
        inner = box & ~torch.nn.functional.max_pool2d((~box).float(), 3, 1, 1).bool()
        redness.append(((image[:, 0] - image[:, 1])[inner]).max())
    assert redness[0] < 0.01 and redness[1] > 0.15


def test_a_scene_does_not_depend_on_those_beside_it_nor_on_what_is_absent():
    scenes = [several(seed, metal=True)[-1] for seed in range(3)]
    join = lambda field: torch.cat([getattr(s, field) for s in scenes])
    batch = Solids(*(join(f) for f in ("shape", "frame", "colour", "metal")))
    lamps = studio.lamps(3, torch.Generator().manual_seed(0))
    image = tracer.picture(batch, camera(3), lamps, 32)
    again = tracer.picture(batch, camera(3), lamps, 32)
    assert torch.equal(image, again)
    one = Lamps(lamps.place[1:2], lamps.radius, lamps.power)
    assert torch.equal(tracer.picture(scenes[1], camera(), one, 32)[0], image[1])
    absent = torch.full((1, 2), -1)
    more = Solids(
        torch.cat([absent, scenes[1].shape], 1),
        torch.cat([torch.zeros(1, 2, 3, 4).double(), scenes[1].frame], 1),
        torch.cat([torch.zeros(1, 2, 3).double(), scenes[1].colour], 1),
        torch.cat([torch.zeros(1, 2).bool(), scenes[1].metal], 1),
    )
    assert torch.equal(tracer.picture(more, camera(), one, 32)[0], image[1])
    labels = [tracer.see(s, camera(), 32)[0].long() for s in (scenes[1], more)]
    assert torch.equal(torch.where(labels[0] >= 0, labels[0] + 2, -1), labels[1])


def test_more_rays_make_the_same_picture_smoother():
    _, _, _, scene = several()
    lamps = studio.lamps(1, torch.Generator().manual_seed(0))
    coarse, fine, finer = (
        tracer.picture(scene, camera(), lamps, 32, *n) for n in ((1, 1), (2, 4), (4, 4))
    )
    assert 0 < (fine - finer).square().mean() < (coarse - finer).square().mean() < 0.01


def test_more_rays_than_are_counted_are_refused():
    _, _, _, scene = several()
    lamps = studio.lamps(1, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"samples=4, shadows=5.*64"):
        tracer.picture(scene, camera(), lamps, 32, 4, 5)
