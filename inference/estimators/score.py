"""Score-function methods: cost × ∇ log q, minus a control variate that needs no other run than copies."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from inference.estimators.baselines import Control
from inference.estimators.handlers import COPIES, several
from inference.estimators.sites import Method, Place, Site, key


class Score(Method):
    """Abstract: cost × ∇ log q minus a control variate."""

    bias: ClassVar[str] = "none"

    def surrogate(self, site: Site) -> Tensor:
        """(K·B, *S) what to differentiate."""
        raise NotImplementedError


class Reinforce(Score):
    """No control variate."""

    summary: ClassVar[str] = "no control variate: the yardstick (Williams, 1992)"
    runs: ClassVar[str] = "1"

    def surrogate(self, site: Site) -> Tensor:
        """The definition."""
        return site.cost * site.log_prob


class NVIL(Score):
    """Minus a baseline, which is fitted in units of the cost's running standard deviation.

    So its learning rate need not know their scale. (Pyro's own keeps one average a batch position, and
    leaks.)

    # differs: `PublishedNVIL` is as in the paper.
    """

    summary: ClassVar[str] = (
        "a learned, input-dependent baseline and running mean (Mnih & Gregor, 2014)"
    )
    runs: ClassVar[str] = "1"

    def __init__(self) -> None:
        super().__init__()
        self.baselines = nn.ModuleDict()

    def prepare(self, place: Place, images: Tensor) -> None:
        """A baseline for the site."""
        control = Control(images.shape[-3:], place.shape)
        self.baselines[key(place.name)] = control.to(images.device)

    def surrogate(self, site: Site) -> Tensor:
        """Includes the squared error of the baseline."""
        baseline = self.baselines[key(site.name)]
        value = baseline(site.images)
        error = ((value - site.cost) / baseline.spread()).square()
        baseline.watch(site.cost)
        return (site.cost - value.detach()) * site.log_prob + error


class PublishedNVIL(Score):
    """NVIL with all three of the paper's means (sections 2.3.1 to 2.3.3, Algorithm 1).

    The baseline sees the images and every latent drawn before, the signal is divided by max(1, its running
    standard deviation), and rows where the site does not exist take no part in the running moments.
    """

    summary: ClassVar[str] = (
        "the same with normalised signals, and baselines that see earlier latents"
    )
    bias: ClassVar[str] = "a site's score is divided by the running deviation of its cost"
    runs: ClassVar[str] = "1"

    def __init__(self) -> None:
        super().__init__()
        self.baselines = nn.ModuleDict()

    def prepare(self, place: Place, images: Tensor) -> None:
        """A baseline for the site; of a first site it sees a constant besides the images."""
        control = Control(images.shape[-3:], place.shape, earlier=1 + place.history)
        self.baselines[key(place.name)] = control.to(images.device)

    def surrogate(self, site: Site) -> Tensor:
        """Includes the squared error of the baseline."""
        baseline = self.baselines[key(site.name)]
        value = baseline(site.images, earlier=site.earlier)
        spread = baseline.spread()
        error = ((value - site.cost) / spread).square()
        signal = (site.cost - value.detach()) / spread
        baseline.watch_present(site.cost, site.exists)
        return signal * site.log_prob + error


class RLOO(Score):
    """Minus the mean cost of the image's other copies."""

    summary: ClassVar[str] = (
        "K = 4 copies, each with the mean of the others as baseline (Kool et al., 2019)"
    )
    runs: ClassVar[str] = "K"
    takes: ClassVar[str] = "copies"

    def __init__(self, copies: int = COPIES) -> None:
        super().__init__()
        self.copies = several(copies)

    def surrogate(self, site: Site) -> Tensor:
        """Copies of an image differ in their samples alone."""
        cost = site.cost.unflatten(0, (self.copies, -1))
        others = (cost.sum(0) - cost) / (self.copies - 1)
        return (cost - others).flatten(0, 1) * site.log_prob
