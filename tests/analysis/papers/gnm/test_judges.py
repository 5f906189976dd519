"""Judges of structure: digits found and read, arrow rooms, and both against scenes that break the rule."""

import math
import os
from dataclasses import replace
from functools import partial

import pytest
import torch

from analysis.papers.gnm import judges
from analysis.papers.gnm.judges import Digits, Reader, Rooms
from inference.images.worlds import load_world, world_dataset
from programs.worlds import arrow_room, mnist4_10
from programs.worlds.made_of import digits as handwriting
from programs.worlds.made_of import tracer

NAMES = ("mnist4", "mnist10", "mnist4_10")


def make(name, number, seed=0, size=64, **changes):
    world = load_world(name)
    config = world.config(size=size, digits="embedded", split="test", **changes)
    return world.scenes(number, torch.Generator().manual_seed(seed), config)


def maps(scene):
    return torch.stack([judges.components(image) for image in scene.image[:, 0]])


@pytest.mark.parametrize(("name", "size"), [("mnist4", 128), ("mnist10", 64), ("mnist10", 128)])
def test_components_are_the_digits(name, size):
    """As many as there are, each inside one true box, whatever it is broken into or touches."""
    scene = make(name, 60, size=size)
    o, right = scene.objects, 0
    for labels, mask in zip(maps(scene), o.mask, strict=True):
        table = torch.stack([labels[m].bincount(minlength=11) for m in mask])[:, 1:]
        owner, most = table.argmax(1), table.amax(1)
        whole = (most > 0.9 * mask.sum((1, 2))).all() and len(set(owner.tolist())) == len(owner)
        right += whole and int(labels.max()) == len(mask)
    assert right >= 59


def test_fragments_are_joined_specks_dropped_and_what_touches_is_cut():
    image = torch.zeros(128, 128)
    image[10:16, 10:20] = image[18:28, 10:13] = 1  # a bar, and the rest of its digit
    image[60, 60] = image[61, 61] = 1
    image[90:110, 40:44] = image[90:110, 74:78] = 1
    image[100, 44:74] = 0.5  # a hair between two
    labels = judges.components(image)
    assert int(labels.max()) == 3
    assert labels[12, 15] == labels[25, 11] > 0 and labels[60, 60] == 0
    assert 0 < labels[95, 41] != labels[95, 75] > 0
    assert judges.components(torch.zeros(64, 64)).max() == 0


class Told:
    """A reader that knows each picture's probabilities in advance."""

    def __init__(self, chance):
        self.chance = chance

    def probabilities(self, x):
        assert x.shape[1:] == (1, 28, 28) and len(x) == len(self.chance)
        return self.chance


def told(scene, doubt=0.0):
    """A judge who gives true classes all probability, and the next class `doubt` of it."""
    o, labels = scene.objects, maps(scene)
    rows = []
    for b in range(len(scene)):
        for k in range(1, int(labels[b].max()) + 1):
            slot = int((o.mask[b] & (labels[b] == k)).sum((1, 2)).argmax())
            kind = int(o.category[b, slot])
            row = torch.zeros(10)
            row[kind], row[(kind + 1) % 10] = 1 - doubt, doubt
            rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_judge_who_reads_right_judges_right(name):
    obeys = partial(mnist4_10.obeys, config=load_world(name).config())
    for lawful in (True, False):
        scene = make(name, 12, lawful=lawful)
        for strict in (True, False):
            judge = Digits(Told(told(scene)), obeys, strict)
            assert (judge(scene.image) == lawful).all()


def test_doubtful_digits_may_be_read_as_the_rule_has_them():
    scene = make("mnist4", 12)
    obeys = mnist4_10.obeys_four
    for doubt, strict, lawful in (
        (0.9, False, True),  # a tenth is for the true class
        (0.9, True, False),
        (0.97, False, False),
        (0.3, True, True),
    ):
        chance = told(scene, doubt)
        chance[1::4], chance[2::4] = told(scene)[1::4], told(scene)[2::4]  # else all move up by one
        judge = Digits(Told(chance), obeys, strict)
        assert (judge(scene.image) == lawful).all(), (doubt, strict)
    lost = torch.full((48, 10), 0.1)
    assert not Digits(Told(lost), obeys)(scene.image).any(), "too many readings are none"


def test_own_segments_of_a_program_are_judged():
    scene = make("mnist4", 10)
    o = scene.objects
    chance = torch.nn.functional.one_hot(o.category.flatten(), 10).float()
    judge = Digits(Told(chance), mnist4_10.obeys_four)
    own = replace(scene, levels=(replace(o, mask=o.mask.float()),))
    assert judge.own(own).all()
    pres = o.pres.clone()
    pres[:5, 0] = 0
    left = replace(own, levels=(replace(own.objects, pres=pres),))
    some = Digits(Told(chance[(pres > 0).flatten()]), mnist4_10.obeys_four).own(left)
    assert some.tolist() == [False] * 5 + [True] * 5


def test_no_object_is_no_structure():
    judge = Digits(Told(torch.zeros(0, 10)), mnist4_10.obeys)
    assert not Digits(Reader().eval(), mnist4_10.obeys)(torch.zeros(2, 1, 64, 64)).any()
    assert not judge.own(make("mnist4", 2).map(torch.zeros_like)).any()


def test_windows_are_centred_and_changed_as_asked():
    x = torch.zeros(1, 1, 64, 64)
    x[..., 10:20, 30:34] = 1
    box = judges.render.box(x[:, 0])
    seen = judges.windows(x, box, 28 / 128)[0, 0]
    torch.testing.assert_close(seen, seen.flip(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen, seen.flip(1), atol=1e-4, rtol=0)
    assert float(seen.sum()) == pytest.approx(40 * 4, rel=0.02)  # 14 pixels become 28
    wide = judges.windows(x, box, 28 / 128, torch.tensor([[0, 5.0, 0, 0, 0]]))[0, 0]
    ratio = float(wide.sum() / seen.sum())
    assert ratio == pytest.approx(math.exp(-5 * judges.STRETCH), rel=0.05)


@pytest.fixture(scope="module")
def learner():
    """A reader after a short training."""
    net = Reader()
    with pytest.MonkeyPatch().context() as m:
        m.setattr(judges, "BATCH", 64)
        judges.learn_digits(net, "embedded", 64, 60)
    return net


def test_the_reader_learns_and_its_judge_tells_scenes_apart(learner, monkeypatch, tmp_path):
    right = judges.accuracy(learner, "embedded", 64)
    assert right > 0.85
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    options = load_world("mnist4").config(size=64, digits="embedded")
    data = world_dataset("mnist4", 60, "test", 0, options, progress=False)
    judge = Digits(learner, mnist4_10.obeys_four)
    found = judges.shares(judge, data, torch.zeros(3, 1, 64, 64), 60, 0)
    assert found["s_acc_true"] > 0.8 and found["s_acc_broken"] < 0.3 and found["s_acc"] == 0
    severe = judges.shares(judges.strict(judge), data, data.floats(number=60), 60, 0)
    assert severe["s_acc_broken"] <= found["s_acc_broken"]
    assert severe["s_acc"] == severe["s_acc_true"] <= found["s_acc_true"]


def test_trained_nets_are_kept_by_what_made_them(monkeypatch, tmp_path):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    monkeypatch.setattr(judges, "STEPS", {"embedded": 2})
    first = judges.reader("embedded", 64)
    monkeypatch.setattr(judges, "learn_digits", lambda *_: pytest.fail("trained again"))
    again = judges.reader("embedded", 64)
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    assert not first.training and not again.training
    with pytest.raises(pytest.fail.Exception):
        judges.reader("embedded", 48)


def test_worlds_without_a_rule_have_no_judge(monkeypatch, tmp_path):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    data = world_dataset("shapes2d", 2, "test", 0, progress=False)
    assert not judges.judges(data)
    with pytest.raises(ValueError, match=r"mnist4, .*this run has shapes2d"):
        judges.judge(data)


# arrow rooms


@pytest.fixture(scope="module")
def rooms():
    """Black ones with their truth, with the rule and without."""
    patch = pytest.MonkeyPatch()
    with patch.context() as m:
        m.setattr(tracer, "picture", lambda solids, *_: torch.zeros(len(solids.shape), 3, 1, 1))
        return {
            lawful: arrow_room.world(
                60,
                torch.Generator().manual_seed(0),
                arrow_room.Config(size=32, samples=1, lawful=lawful),
            )
            for lawful in (True, False)
        }


class Informed(torch.nn.Module):
    """Knows the shapes, and the angles but for an error."""

    def __init__(self, nodes, error=0.0):
        super().__init__()
        kind = torch.nn.functional.one_hot(nodes.category[:, :3], 3).float()
        off = judges.angles(nodes) + error
        self.said = 5 * kind, 2 * torch.stack([off.cos(), off.sin()], -1)

    def forward(self, images):
        return self.said


def test_rooms_are_judged_by_shapes_and_direction(rooms):
    for lawful, scene in rooms.items():
        nodes = scene.objects
        assert torch.equal(Rooms(Informed(nodes))(scene.image), arrow_room.obeys(nodes))
        assert arrow_room.obeys(nodes).all() == lawful
        near = Rooms(Informed(nodes, math.radians(12)))(scene.image)
        far = Rooms(Informed(nodes, math.radians(18)))(scene.image)
        assert torch.equal(near, arrow_room.obeys(nodes)) and not far.any()


def test_rooms_without_the_rule_break_it_in_every_way(rooms):
    nodes = rooms[False].objects
    alike = (nodes.category[:, :3, None] == nodes.category[:, None, :3]).sum((1, 2))
    assert {3, 5, 9} == set(alike.tolist())  # all different, two alike, all alike
    target = judges.angles(nodes).abs().argmin(1)
    assert set(target.tolist()) == {0, 1, 2}
    assert torch.equal(target, nodes.attributes[:, :3, 0].argmax(1))
    assert 0 < arrow_room.obeys(nodes).float().mean() < 0.5
    torch.testing.assert_close(
        judges.angles(nodes).abs().amin(1), torch.zeros(60), atol=1e-5, rtol=0
    )


def test_the_net_of_rooms_learns_from_rooms_without_the_rule(monkeypatch):
    asked = {}

    def drawn(name, number, split, seed, options):
        asked.update(name=name, options=options)
        config = replace(options, samples=1)
        return world_dataset(name, number, split, seed, config, progress=False)

    monkeypatch.setattr(judges, "world_dataset", drawn)
    monkeypatch.setattr(judges, "ROOM_STEPS", 2)
    net = judges.RoomNet()
    before = [p.clone() for p in net.parameters()]
    judges.learn_rooms(net, {"size": 128}, rooms=16)
    assert asked["name"] == "arrow_room" and not asked["options"].lawful
    assert asked["options"].size == judges.ROOM_SIDE
    assert not all(map(torch.equal, before, net.parameters()))
    logits, direction = net(torch.zeros(2, 3, 128, 128))
    assert logits.shape == (2, 3, 3) and direction.shape == (2, 3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["embedded", "mnist"])
def test_the_judge_of_digits_is_right_about_true_scenes(source):
    if source == "mnist" and not os.environ.get(handwriting.FOLDER):
        pytest.skip(f"{handwriting.FOLDER} is not set")
    net = judges.reader(source, 128)
    assert judges.accuracy(net, source, 128) >= {"mnist": 0.993, "embedded": 0.97}[source]
    for name in NAMES:
        options = load_world(name).config(digits=source)
        data = world_dataset(name, 300, "test", 0, options, progress=False)
        found = judges.shares(judges.judge(data), data, torch.zeros(1, 1, 128, 128), 300, 0)
        assert found["s_acc_true"] >= 0.97 and found["s_acc_broken"] <= 0.05


@pytest.mark.slow
def test_the_judge_of_rooms_is_right_about_true_scenes():
    options = arrow_room.Config(size=64)
    data = world_dataset("arrow_room", 300, "test", 0, options, progress=False)
    found = judges.shares(judges.judge(data), data, torch.zeros(1, 3, 64, 64), 300, 0)
    assert found["s_acc_true"] >= 0.97 and found["s_acc_broken"] <= 0.05
