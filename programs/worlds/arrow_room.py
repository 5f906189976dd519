"""Arrow Room: an arrow points at the object of another shape (GNM, NeurIPS 2020, section 5 and supplement).

Four things in CLEVR's studio: three objects at the back, left, middle and right, of which two have the same
shape, and in front an arrow that lies on the floor and points at the third. Seen from the arrow:

    odd      ~ Uniform{left, middle, right}          two shapes ~ Uniform{pairs of cube, sphere, cylinder}
    azimuth  ~ Uniform(±10°) around -50°, 0°, 50°    distance   ~ Uniform(2.5, 3.5), each object
    arrow    ~ Uniform(±0.3)² around START           its heading = the direction of the odd one
    colour of each thing ~ Uniform{8 colours}        material of all four ~ Uniform{rubber, metal}
    places again if objects are nearer than 0.2, or one has less than 100 visible px at 128 x 128

# differs: the paper gives neither places nor sizes. Its pictures show that the arrow points at the odd one
in three dimensions, that a scene has one material and that objects have one size; the numbers above are
ours.

Slots: left, middle, right, arrow. `category` is an index of KINDS; `attributes` are 1 for the odd one and 0
for the others, the place (x, y) on the floor, and the direction in which the thing points there, in radians
from x towards y (0 for objects). A pose is the upright box around the whole projection, depth the distance
from the eye. `obeys` is the rule. With ``lawful=False`` shapes are independent, and the arrow points at any
object, which then counts as the odd one: such scenes train and measure the judges of structure.

Shape legend: B images, N = 4 things, S pixels per side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from programs.scene import Nodes, Scene
from programs.worlds import with_visible_masks as with_masks
from programs.worlds.made_of import studio, tracer
from programs.worlds.made_of.tracer import BOX, PRISM, Camera, Solids

__all__ = ["VERSION", "Config", "draw", "obeys", "with_masks", "world"]

VERSION = "2"
"""Part of the cache key: raise it with every change of the drawn scenes."""
KINDS = (*studio.SHAPES, "arrow")
OBJECTS = 3
RADIUS = 0.7
AZIMUTH, SWAY = (-50.0, 0.0, 50.0), 10.0  # degrees
DISTANCE = 2.5, 3.5
START = 0.0, -2.3
"""Mean place of the arrow, right of and beyond the origin in the camera's directions on the floor."""
STRAY = 0.3
"""Largest shift of the arrow from `START` along each direction."""
ARROW = BOX, PRISM
"""Solids of an arrow."""
THING = [0, 1, 2, 3, 3]
"""Thing to which each of the scene's solids belongs."""
SHAFT = 0.17, 0.45
"""Half-widths of the arrow's shaft."""
HEAD = 0.5
"""Circumradius of the arrow's head."""
THICK = 0.15
"""Half the arrow's height."""
APART = 0.2
LEAST = 100
"""Least number of visible pixels of a thing, at GRID pixels per side."""
GRID = 128
"""Pixels per side of the picture in which visible pixels are counted, whatever the image's size."""


@dataclass(frozen=True)
class Config:
    """Options of the world; the defaults are the paper's."""

    size: int = 128  # pixels per side
    samples: int = 2  # rays per pixel, along each side
    lawful: bool = True  # False: any three shapes, and the arrow points at any of them

    def __post_init__(self) -> None:
        studio.check_picture(self.size, self.samples)


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth, a Scene of one level."""
    return with_masks(*draw(batch, generator, config))


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Draw scenes without masks, and their label map (B, S, S) uint8: 0, or 1 + the visible slot."""
    odd = torch.randint(OBJECTS, (batch,), generator=generator)
    is_odd = torch.arange(OBJECTS + 1) == odd[:, None]
    pair = studio.uniform(generator, batch, len(studio.SHAPES)).argsort(1)
    shape = torch.where(is_odd[:, :OBJECTS], pair[:, :1], pair[:, 1:2])
    if not config.lawful:
        shape = torch.randint(len(studio.SHAPES), (batch, OBJECTS), generator=generator)
    colour = torch.randint(len(studio.RGB), (batch, OBJECTS + 1), generator=generator)
    metal = torch.randint(2, (batch, 1), generator=generator) == 1
    camera, lamps = studio.camera(batch, generator), studio.lamps(batch, generator)

    solid = torch.cat([studio.solid(shape), torch.tensor(ARROW).expand(batch, -1)], 1)
    frame = torch.zeros(*solid.shape, 3, 4, dtype=torch.float64)
    place, heading = torch.zeros(batch, OBJECTS + 1, 2).double(), torch.zeros(batch).double()
    solids = Solids(solid, frame, studio.COLOURS[colour[:, THING]], metal.expand_as(solid))
    todo = torch.arange(batch)
    while len(todo):
        place[todo] = _places(camera[todo], generator)
        heading[todo] = _direction(place[todo], odd[todo])
        turn = 2 * math.pi * studio.uniform(generator, len(todo), OBJECTS)
        frame[todo] = _frames(shape[todo], place[todo], turn, heading[todo])
        seen = studio.pixels(solids[todo], camera[todo], GRID)
        good = (_things(seen) >= LEAST).all(1) & _apart(place[todo])
        todo = todo[~good]
    image, labels = studio.photograph(solids, camera, lamps, config.size, config.samples)

    box, middle = tracer.boxes(solids, camera), frame[..., 3]
    low, high = -_things(-box[..., :2], torch.amax), _things(box[..., 2:], torch.amax)
    middle = torch.cat([middle[:, :OBJECTS], middle[:, OBJECTS:].mean(1, keepdim=True)], 1)
    kind = torch.cat([shape, torch.full((batch, 1), OBJECTS)], 1)
    points = torch.zeros(batch, OBJECTS + 1).double()
    points[:, OBJECTS] = heading
    attributes = torch.cat([is_odd[..., None], place, points[..., None]], -1).float()
    nodes = studio.nodes(torch.cat([low, high], -1), middle, camera, kind, attributes=attributes)
    return Scene(image, (nodes,)), labels.clamp(max=OBJECTS + 1)


def obeys(nodes: Nodes, config: Config = Config(), tolerance: float = 1e-3) -> Tensor:
    """(B,) whether two of three objects have one shape and the arrow points at the third.

    Args:
        tolerance: largest error of the arrow's direction, in radians.
    """
    category = nodes.category[:, :OBJECTS]
    alike = (category[:, :, None] == category[:, None]).sum(2)
    odd, place = alike.argmin(1), nodes.attributes[..., 1:3]
    off = _direction(place, odd) - nodes.attributes[:, OBJECTS, 3]
    return (alike.sum(1) == 5) & (off.cos() > math.cos(tolerance))


def _places(camera: Camera, generator: torch.Generator) -> Tensor:
    """Draw places (B, N, 2) on the floor."""
    batch = len(camera.eye)
    floor = torch.nn.functional.normalize(camera.axes[:, [0, 2], :2], dim=-1)  # right, away
    centred = lambda *shape: 2 * studio.uniform(generator, *shape) - 1  # noqa: E731
    arrow = torch.tensor(START, dtype=torch.float64) + STRAY * centred(batch, 1, 2)
    azimuth = torch.tensor(AZIMUTH, dtype=torch.float64) + SWAY * centred(batch, OBJECTS)
    near, far = DISTANCE
    distance = near + (far - near) * studio.uniform(generator, batch, OBJECTS)
    step = torch.stack([azimuth.deg2rad().sin(), azimuth.deg2rad().cos()], -1)
    return torch.cat([arrow + distance[..., None] * step, arrow], 1) @ floor


def _apart(place: Tensor) -> Tensor:
    """(B,) whether all objects are at least `APART` from each other."""
    i, j = torch.triu_indices(OBJECTS, OBJECTS, 1)
    return ((place[:, i] - place[:, j]).norm(dim=-1) > 2 * RADIUS + APART).all(1)


def _direction(place: Tensor, odd: Tensor) -> Tensor:
    """(B,) direction of the odd one, seen from the arrow, in radians from x towards y."""
    step = place[torch.arange(len(odd)), odd] - place[:, OBJECTS]
    return torch.atan2(step[:, 1], step[:, 0])


def _frames(shape: Tensor, place: Tensor, turn: Tensor, heading: Tensor) -> Tensor:
    """Frames (B, N + 1, 3, 4) of the objects and of the arrow's shaft and head, whose y axes point ahead."""
    radius = torch.full(shape.shape, RADIUS, dtype=torch.float64)
    objects = studio.stand(shape, radius, place[:, :OBJECTS], turn)
    half = torch.tensor([[*SHAFT, THICK], [HEAD, HEAD, THICK]], dtype=torch.float64)
    ahead = torch.tensor([-SHAFT[1], HEAD / 2], dtype=torch.float64)  # of where the two meet
    along = torch.stack([heading.cos(), heading.sin()], -1)[:, None] * ahead[:, None]
    middle = torch.cat([place[:, OBJECTS:] + along, torch.full((len(shape), 2, 1), THICK)], -1)
    yaw = (heading - math.pi / 2)[:, None].expand(-1, 2)
    return torch.cat([objects, tracer.upright(middle, half.expand_as(middle), yaw)], 1)


def _things(solids: Tensor, join: Callable[..., Tensor] = torch.sum) -> Tensor:
    """Values of the things (B, N, …), joined from values of their solids."""
    arrow = join(solids[:, OBJECTS:], dim=1, keepdim=True)
    return torch.cat([solids[:, :OBJECTS], arrow], 1)
