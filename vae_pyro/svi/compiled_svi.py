"""`CompiledSVI`: `pyro.infer.SVI` whose step is one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor
from torch.optim import Optimizer

from vae_pyro.compilation.capture import Loss, Prepare, PyroProgram
from vae_pyro.compilation.graph import CaptureError
from vae_pyro.core.renamed import Former
from vae_pyro.parallel.ranks import ALONE, Ranks
from vae_pyro.svi.ensemble import Ensemble
from vae_pyro.svi.epochs import EpochDriver
from vae_pyro.svi.inference import Inference
from vae_pyro.svi.keys import ProgramTable, key_of
from vae_pyro.svi.reducer import Reducer
from vae_pyro.svi.stepper import Compile, SplitForm, Stepper, Traced
from vae_pyro.svi.stock import Fallbacks, StockOptimizer, StockStep, SVIFallbackWarning, TorchOptimizer
from vae_pyro.svi.tracer import Tracer

__all__ = ["CompiledSVI", "SVIFallbackWarning"]


class CompiledSVI(SVI):
    """Stochastic variational inference with the loss, its gradient and the optimizer in one compiled program.

    Takes the place of `pyro.infer.SVI`::

        svi = CompiledSVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(1000):
            loss = svi.step(data)

    The first step with arguments of a new shape traces the programs (`vae_pyro.svi.tracer`) and compares the result
    with the stock loss and all its gradients at the same noise (`vae_pyro.svi.parity`); only if they agree is it used.
    On a CPU the traced step is compiled by Inductor. Noise is drawn from torch's generator in the order in which the
    stock step draws it, so that a seed gives the trajectory that it gives there, to rounding.

    What the structure of the programs may depend on: shapes and Python values of the arguments, and the training mode
    of modules; each combination is a program. A tensor that the programs read (a buffer, a schedule's weight) may
    change between steps; a Python number that they read from elsewhere is baked in, until `recompile` is called. A
    step under effect handlers from outside, or one that cannot be traced, is the stock step, with a warning once.
    So is the very first one where the programs make parameters at random, without a warning: the two draw from one
    generator, in the stock order.

    Args:
        model: Pyro model.
        guide: Pyro guide.
        optim: a Pyro optimizer, or a torch optimizer that holds the parameters.
        loss: a Pyro `ELBO`, or ``loss(model, guide, *args, **kwargs)`` that gives a differentiable tensor.
        loss_and_grads: as for `pyro.infer.SVI`; where it is given, every step is a stock step.
        prepare: maps the arguments of `step` to ``(args, kwargs)`` of the programs, inside the compiled program:
            scaling and binarising a batch of bytes, for instance.
        clip_norm: largest Euclidean norm of the whole gradient.
        autocast: type of the networks' matrix products, such as ``torch.bfloat16``; densities keep their own.
        compile: ``False`` runs the traced graph without a compiler (and ``"never"`` the stock step); ``True``
            compiles. A number compiles a shape once it has been stepped so often.
        num_ensemble: train so many members at once, each with its own parameters and noise.
        seeds: of the members' noise and of parameters that the programs make; ``0, 1, ...`` if not given. A member is
            the run alone whose generator is seeded so; where the programs make their parameters at random, the noise
            starts from the seed as well, while a run alone draws it after them.
        initialize: called with each seed before its member's parameters are read off the programs, where those have
            parameters of their own, as modules do; without it they start equal. Buffers that it fills otherwise for
            each seed are each member's own as well.
        own_batches: every tensor among the arguments of `step` has the members as its first dimension, so that each
            steps through data of its own; otherwise all members see the same batch.
        ranks: processes that take every step together, each on its part of the batch: loss, metrics and gradients are
            summed over them before the optimizer moves. All have to start from the same parameters, and each from a
            seed of its own.
        steps_at_once: steps of `run_epoch` that are taken without a look-up between them, on a GPU as one CUDA graph
            (`vae_pyro.svi.cuda_graphs`).

    Attributes:
        optimizer: as given.
        ensemble: the members, see `vae_pyro.svi.ensemble.Ensemble`; ``None`` for a single run.
        metrics: the loss's own metrics of the last step, tensors without gradient, for losses that keep ``metrics``;
            and ``gradient_norm`` where it is clipped.

    Raises:
        ValueError: an optimizer of another kind, or options that exclude each other.
    """

    metrics: dict[str, Tensor]
    share, compile = Former("take_step(..., share=)"), Former("take_step(..., compile=)")
    signal, steps_at_once = Former("Ranks.announce"), Former("CompiledSVI(..., steps_at_once=)")
    adopt, generators = Former("CompiledSVI.ensemble.adopt"), Former("CompiledSVI.ensemble.generators")
    load_member, steps_taken = Former("CompiledSVI.member"), Former("CompiledSVI.ensemble.steps_taken")

    def __init__(
        self,
        model: PyroProgram,
        guide: PyroProgram,
        optim: PyroOptim | Optimizer,
        loss: Loss,
        loss_and_grads: Callable[..., Any] | None = None,
        num_samples: int = 0,
        num_steps: int = 0,
        *,
        prepare: Prepare | None = None,
        clip_norm: float | None = None,
        autocast: torch.dtype | None = None,
        compile: Compile = True,  # noqa: A002 (what it is called everywhere)
        num_ensemble: int | None = None,
        seeds: Sequence[int] | None = None,
        initialize: Callable[[int], Any] | None = None,
        own_batches: bool = False,
        ranks: Ranks = ALONE,
        steps_at_once: int = 16,
        **kwargs: Any,
    ) -> None:
        adapted = optim if isinstance(optim, PyroOptim) else TorchOptimizer(optim)
        super().__init__(model, guide, adapted, loss, loss_and_grads, num_samples, num_steps, **kwargs)
        _require_mode(compile)
        if num_ensemble is None and (seeds is not None or initialize is not None or own_batches):
            raise ValueError("seeds, initialize and own_batches belong to num_ensemble, which is not given")
        if num_ensemble is not None and not ranks.alone:
            raise ValueError("an ensemble is trained by one process; give each process members of its own")
        self.optimizer = optim
        self.metrics = {}
        self._compile = compile
        self._has_own_gradient = loss_and_grads is not None
        self._inference = inference = Inference(model, guide, loss, prepare, autocast)
        optimizer, reducer = StockOptimizer(optim, clip_norm), Reducer(ranks)
        self.ensemble: Ensemble | None = None
        if num_ensemble is not None:
            self.ensemble = Ensemble(inference, optimizer, num_ensemble, seeds, initialize, own_batches)
        self._fallbacks = Fallbacks()
        self._tracer = Tracer(inference, in_stock_order=self.ensemble is None)
        self._programs = ProgramTable(self._trace, self._fallbacks)
        self._stepper = Stepper(optimizer, reducer, self._fallbacks)
        self._stock = StockStep(inference, self.loss_and_grads, optimizer, reducer)
        self._epochs = EpochDriver(self.take_step, self._find_block, self._keep, steps_at_once)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step.

        Returns:
            The loss before the step, a float; for an ensemble a list of them, one for each member.
        """
        loss = self.take_step(args, kwargs)
        return loss.tolist() if isinstance(loss, Tensor) else loss

    def step_tensor(self, *args: Any, **kwargs: Any) -> Any:
        """As `step`, with the loss as a tensor, so that nothing waits for the device.

        A step whose loss is not finite changes no parameter, and returns that loss.
        """
        return self.take_step(args, kwargs)

    def take_step(
        self,
        args: Sequence[Any],
        kwargs: dict[str, Any] | None = None,
        *,
        share: float = 1.0,
        compile: Compile | None = None,  # noqa: A002
    ) -> Any:
        """As `step_tensor`, with what may change from step to step.

        Args:
            args: arguments of the step.
            kwargs: likewise.
            share: what loss and gradient of this process are multiplied by before they are summed over ``ranks``: 1
                for a loss that is a sum over data, this process's share of the batch for one that is a mean.
            compile: how this step is taken, see the class; ``None`` is the mode of the class.

        Raises:
            ValueError: the step of an ensemble cannot be compiled.
        """
        args, kwargs = tuple(args), kwargs or {}
        mode = self._compile if compile is None else _require_mode(compile)
        traced = self._find(args, kwargs, mode)
        if traced is None:
            loss, self.metrics = self._stock.take(args, kwargs, share)
        else:
            generators = None if self.ensemble is None else self.ensemble.generators
            loss, self.metrics = self._stepper.take(
                traced, args, kwargs, compile=mode, share=share, generators=generators
            )
        if self.metrics:
            self._inference.publish(self.metrics)
        return loss

    def step_empty(self) -> Any:
        """A step of a batch of which this process has no part: it adds nothing, and moves as the others do.

        Returns:
            The loss, summed over ``ranks``.

        Raises:
            ValueError: this process has not taken a step yet.
        """
        form = next((traced.form for traced in self._programs if isinstance(traced.form, SplitForm)), None)
        loss, self.metrics = self._stepper.take_nothing(form, self._tracer.leaf)
        return loss

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Estimate of the loss without a step; the arguments are those of `step`."""
        args, kwargs = self._inference.prepared(args, kwargs)
        with self._inference.products():
            return super().evaluate_loss(*args, **kwargs)

    def run_epoch(self, *data: Any, batch_size: int, seed: int = 0, drop_last: bool = False, **kwargs: Any) -> Any:
        """Step through data once, in a random order.

        Args:
            data: tensors with the same first dimension, batches of which are the arguments of `step`; or one object
                with a method ``raw`` (`vae_pyro.svi.epochs.Rows`), such as a split of `vae_pyro.load_data` together
                with ``prepare=split.observe``. A split that is streamed is read in the order of its own ``epoch``.
            batch_size: data in a step; the last batch is smaller where they do not divide.
            seed: of the order, and of the bits of random observations; on a GPU the bits, like the noise, come from
                torch's generator there.
            drop_last: leave a smaller last batch out.
            kwargs: passed to every step.

        Returns:
            The sum of the steps' losses divided by the number of data stepped through: for a loss that is a sum over
            data, in nats per datum. For an ensemble, a list.

        Raises:
            ValueError: tensors of different lengths, or no data.
        """
        return self._epochs.run(data, batch_size, seed, drop_last, kwargs)

    def recompile(self) -> None:
        """Forget the programs, after a change of what they baked in (Python values, the loss's options)."""
        self._programs.forget()
        self._epochs.forget()
        self._tracer.forget()

    def trace(self, *args: Any, **kwargs: Any) -> bool:
        """Trace for arguments of `step`, without a step; whether they are traced now, and not a stock step's."""
        return self._find(args, kwargs, self._compile) is not None

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Unconstrained parameters of the programs by name, once they have been traced."""
        return dict(self._tracer.leaves)

    def member(self, number: int) -> dict[str, Tensor]:
        """Unconstrained parameters of one member of the ensemble, by name; views, not copies.

        Raises:
            IndexError: no such member, or no step has been taken.
        """
        if self.ensemble is None:
            raise IndexError(f"no member {number}: num_ensemble is not given")
        return self.ensemble.member(number)

    def _find(self, args: tuple[Any, ...], kwargs: dict[str, Any], mode: Compile) -> Traced | None:
        """The program for arguments of a step; ``None`` where the step is to be a stock step."""
        traced, reason = None, "compile='never'" if mode == "never" else None
        if self._has_own_gradient:
            reason = "a loss_and_grads of its own"
        if reason is None and am_i_wrapped():
            reason = "effect handlers from outside"
            self._fallbacks.say("the step runs under effect handlers from outside, as the stock step")
        if reason is None:
            if self.ensemble is not None:
                args, kwargs = self.ensemble.first_batch(args, kwargs)
            if self._tracer.outdated:
                self.recompile()
            traced = self._programs.find(key_of(args, kwargs, self._inference.modes), args, kwargs)
        if traced is None and self.ensemble is not None:
            reason = reason or "a first batch whose loss is not finite, or an argument that is not hashable,"
            raise ValueError(f"an ensemble is a compiled program, which {reason} rules out")
        return traced

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced:
        """A new entry of the table of programs."""
        try:
            program = self._tracer.trace(args, kwargs)
            if self.ensemble is None:
                return self._stepper.begin(program)
            return Traced(self.ensemble.form_of(program, args, kwargs))
        except CaptureError as error:
            if self.ensemble is None:
                raise
            raise ValueError(f"an ensemble is a compiled program, and this one cannot be: {error}") from error

    def _find_block(self, batch: Callable[[], tuple[Any, ...]]) -> Traced | None:
        """The program with which steps on such batches can be taken at once, if it has been traced."""
        single = self.ensemble is None and self._stepper.reducer.alone and self._compile != "never"
        if not single or not len(self._programs) or am_i_wrapped() or self._tracer.outdated:
            return None
        return self._programs.known(key_of(batch(), {}, self._inference.modes))

    def _keep(self, metrics: dict[str, Tensor]) -> None:
        self.metrics = metrics


def _require_mode(compile: Compile) -> Compile:  # noqa: A002
    if compile != "never" and not isinstance(compile, bool | int):
        raise ValueError(f"compile is True, False, 'never' or a number of steps, got {compile!r}")
    return compile
