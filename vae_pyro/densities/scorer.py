"""log p(x | z) and log p(z) of one model at many draws, compiled where that pays."""

from typing import Any

import torch
from torch import Tensor

from vae_pyro.compilation.capture import CaptureError, capture_function
from vae_pyro.compilation.inductor import CompileError, compile_checked
from vae_pyro.compilation.source import Source
from vae_pyro.data.split import Given
from vae_pyro.densities.programs.programs import Programs

# Elements of x, over particles and data, beyond which compiling the model's density repays its seconds.
_WORTH_COMPILING = 1_000_000_000


class Scorer:
    """`vae_pyro.densities.programs.programs.Programs.score` of one model, compiled for the first shape where that pays.

    Args:
        programs: of a pair.
        elements: numbers that all calls together will hold: draws times data times the width of a pass.
    """

    def __init__(self, programs: Programs, elements: int) -> None:
        self.programs = programs
        self._compile_next = elements >= _WORTH_COMPILING
        self._shapes: list[torch.Size] = []
        self._run: Any = None
        self._constants: list[Tensor] = []

    def __call__(
        self, x: Tensor, given: Given, latents: dict[str, Tensor], num_particles: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """log p(x | z) and log p of each latent site, nats, each ``(particle, datum)``.

        Args:
            x: ``(datum, *x_shape)``.
            given: ``mask`` and ``y`` that the model is given.
            latents: draws of every latent site, ``(particle, datum, *event)``.
            num_particles: of the draws, where there may be no site.
        """
        beside, names = list(given), list(latents)
        tensors = [x, *given.values(), *(latents[name].contiguous() for name in names)]

        def score(*flat: Tensor) -> tuple[Tensor, ...]:
            first = 1 + len(beside)
            at = dict(zip(names, flat[first:], strict=True))
            beside_x = dict(zip(beside, flat[1:first], strict=True))
            scores = self.programs.score(flat[0], at, num_particles=num_particles, **beside_x)
            return scores.log_likelihood, *(scores.log_prior[name] for name in names)

        if self._compile_next:
            self._compile_next = False
            self._compile(score, tensors)
        if self._run is not None and [tensor.shape for tensor in tensors] == self._shapes:
            log_likelihood, *log_prior = self._run([*tensors, *self._constants])
        else:
            log_likelihood, *log_prior = score(*tensors)
        return log_likelihood, dict(zip(names, log_prior, strict=True))

    def _compile(self, score: Any, tensors: list[Tensor]) -> None:
        try:
            graph = capture_function(score, tensors)
            inputs = [*tensors, *graph.constants]
            run = compile_checked(Source.of(graph.module), inputs, lambda *flat: score(*flat[: len(tensors)]))
        except (CaptureError, CompileError):
            return  # the programs as they are give the same numbers, later
        self._run, self._constants = run, graph.constants
        self._shapes = [tensor.shape for tensor in tensors]
