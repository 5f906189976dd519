"""Small nets: trained once for what they depend on, and kept."""

import torch

from analysis.judges.nets import cached_net, seeded


def test_a_net_is_trained_once_per_key(monkeypatch, tmp_path):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / "new"))
    trained = []

    def kept(key):
        net = seeded(lambda: torch.nn.Linear(2, 3), 0).train()

        def train():
            trained.append(key)
            torch.nn.init.constant_(net.weight, len(trained))

        cached_net(net, key, train)
        assert not net.training
        return net.weight.mean().item()

    one, two = {"steps": 1, "net": "a"}, {"steps": 2, "net": "a"}
    assert [kept(one), kept(two), kept(dict(reversed(one.items()))), kept(two)] == [1, 2, 1, 2]
    assert trained == [one, two] and len([*(tmp_path / "new").iterdir()]) == 2
