"""Published results of the IWAE protocol."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row of table 1 of Burda et al., and the best known later run of the same protocol.

    Attributes:
        paper: test NLL in nats, k = 5000 at test.
        rerun: likewise, output bias from the data.
        active: active units in the paper.
    """

    paper: float | None = None
    rerun: float | None = None
    active: int | None = None

    @property
    def nll(self) -> float | None:
        """The test NLL of the paper, or else of the re-run."""
        return self.rerun if self.paper is None else self.paper


# With one particle the VAE and the IWAE are the same objective.
PUBLISHED = {
    ("elbo", 1): Published(86.76, 86.35, 19),
    ("elbo", 5): Published(86.47),
    ("elbo", 50): Published(86.35),
    ("iwae", 1): Published(86.76, 86.35, 19),
    ("iwae", 5): Published(85.54, 85.18, 22),
    ("iwae", 50): Published(84.78, 84.59, 25),
    ("dreg", 1): Published(None, 86.08),
    ("dreg", 5): Published(None, 84.90),
    ("dreg", 50): Published(None, 84.32),
}
