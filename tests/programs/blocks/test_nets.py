"""Networks: absent nodes are left out."""

import torch

from programs.blocks import nets


def test_absent_nodes_are_computed_only_without_gradients():
    seen = []

    def double(x):
        seen.append(len(x.reshape(-1, 2)))
        return 2 * x

    exists, x = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 1e-6]]), torch.rand(2, 3, 2)
    found = nets.where_present(exists, double, x)
    torch.testing.assert_close(found, 2 * x * (exists > nets.ABSENT).unsqueeze(-1))
    with torch.no_grad():
        torch.testing.assert_close(nets.where_present(exists, double, x), 2 * x)
    nets.where_present(torch.zeros(2, 3), double, x)  # nobody at all
    assert seen == [2, 6, 1]
