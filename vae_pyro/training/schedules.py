"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no state of theirs.

A schedule is built with the run's length and gives, at every step, the factor that multiplies the optimizer's rate.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from math import cos, pi
from typing import Annotated, ClassVar

from pydantic import Field

from vae_pyro.core.registry import ClassRegistry

type Share = Annotated[float, Field(ge=0, le=1)]


class Schedule(ABC):
    """Factor of the learning rate at each step, with an optional linear warm-up from zero.

    Args:
        num_steps: steps of the whole run.
        steps_per_epoch: steps of one epoch.
        warmup: epochs over which the rate rises linearly; the schedule's own course begins after them.

    Attributes:
        open_ended: whether the factor does not depend on the length of the run.
    """

    open_ended: ClassVar[bool] = False

    def __init__(self, num_steps: int, steps_per_epoch: int, *, warmup: Annotated[float, Field(ge=0)] = 0.0) -> None:
        self.num_steps, self.steps_per_epoch = num_steps, steps_per_epoch
        self.warmup_steps = round(warmup * steps_per_epoch)

    def __call__(self, step: int) -> float:
        """Factor at ``step``, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.factor(step - self.warmup_steps, max(self.num_steps - self.warmup_steps, 1))

    @abstractmethod
    def factor(self, step: int, num_steps: int) -> float:
        """Factor at ``step`` of ``num_steps`` after the warm-up."""


SCHEDULES: ClassRegistry[Schedule] = ClassRegistry("schedule")


@SCHEDULES.register("constant")
class Constant(Schedule):
    """The same rate throughout."""

    open_ended = True

    def factor(self, step: int, num_steps: int) -> float:
        return 1.0


@SCHEDULES.register("cosine")
class Cosine(Schedule):
    """Half a cosine from 1 down to ``final``.

    References:
        Loshchilov & Hutter 2017, SGDR, eq. 5, without restarts. arXiv:1608.03983
    """

    def __init__(
        self,
        num_steps: int,
        steps_per_epoch: int,
        *,
        warmup: Annotated[float, Field(ge=0)] = 0.0,
        final: Share = 0.0,
    ) -> None:
        super().__init__(num_steps, steps_per_epoch, warmup=warmup)
        self.final = final

    def factor(self, step: int, num_steps: int) -> float:
        return self.final + (1 - self.final) * (1 + cos(pi * step / num_steps)) / 2


@SCHEDULES.register("step")
class Step(Schedule):
    """Multiplied by ``gamma`` at each of ``milestones``, counted in epochs after the warm-up.

    Burda et al. 2016 have ``milestones = 1, 4, 13, 40, 121, 364, 1093`` (stages of 3^i epochs) and
    ``gamma = 10^(-1/7)``.
    """

    def __init__(
        self,
        num_steps: int,
        steps_per_epoch: int,
        *,
        warmup: Annotated[float, Field(ge=0)] = 0.0,
        milestones: tuple[Annotated[float, Field(gt=0)], ...],
        gamma: Annotated[float, Field(gt=0)] = 0.1,
    ) -> None:
        super().__init__(num_steps, steps_per_epoch, warmup=warmup)
        if any(later <= earlier for earlier, later in pairwise(milestones)):
            raise ValueError(f"milestones must rise, got {list(milestones)}")
        self.milestones, self.gamma = milestones, gamma

    def factor(self, step: int, num_steps: int) -> float:
        passed = sum(step >= milestone * self.steps_per_epoch for milestone in self.milestones)
        return self.gamma**passed


@SCHEDULES.register("one_cycle")
class OneCycle(Schedule):
    """Up from ``start`` to 1 over the first ``rise`` of the run, down to ``final`` over the rest, along half cosines.

    References:
        Smith & Topin 2018, Super-convergence, sec. 4. arXiv:1708.07120
    """

    def __init__(
        self,
        num_steps: int,
        steps_per_epoch: int,
        *,
        warmup: Annotated[float, Field(ge=0)] = 0.0,
        rise: Annotated[float, Field(gt=0, lt=1)] = 0.3,
        start: Share = 0.04,
        final: Share = 0.0,
    ) -> None:
        super().__init__(num_steps, steps_per_epoch, warmup=warmup)
        self.rise, self.start, self.final = rise, start, final

    def factor(self, step: int, num_steps: int) -> float:
        top = self.rise * num_steps
        if step < top:
            return self.start + (1 - self.start) * (1 - cos(pi * step / top)) / 2
        return self.final + (1 - self.final) * (1 + cos(pi * (step - top) / (num_steps - top))) / 2
