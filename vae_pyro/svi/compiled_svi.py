"""`CompiledSVI`: `pyro.infer.SVI` whose step is one compiled program."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from pyro.infer import SVI
from pyro.infer.util import torch_item
from pyro.optim import PyroOptim
from torch import Tensor
from torch.optim import Optimizer

from vae_pyro.compilation.capture import Loss, Prepare, PyroProgram
from vae_pyro.compilation.graph import CaptureError
from vae_pyro.compilation.worth import Plan
from vae_pyro.core.renamed import Former
from vae_pyro.parallel.ranks import ALONE, Ranks
from vae_pyro.svi.ensemble import Ensemble
from vae_pyro.svi.epochs import EpochDriver
from vae_pyro.svi.forms import SplitForm
from vae_pyro.svi.inference import Inference
from vae_pyro.svi.keys import floats_of
from vae_pyro.svi.reducer import Reducer
from vae_pyro.svi.single_run import SingleRun
from vae_pyro.svi.status import SVIStatus
from vae_pyro.svi.stepper import Compile, Stepper, Traced
from vae_pyro.svi.stock import Fallbacks, StockOptimizer, StockStep, SVIFallbackWarning, TorchOptimizer

__all__ = ["CompiledSVI", "SVIFallbackWarning"]


class CompiledSVI(SVI):
    """Stochastic variational inference with the loss, its gradient and the optimizer in one compiled program.

    Takes the place of `pyro.infer.SVI`::

        svi = CompiledSVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(1000):
            loss = svi.step(data)

    For every program that `pyro.infer.SVI` accepts, a step is either compiled, with the loss, parameters, buffers,
    optimizer state and generators of the stock step to rounding; or it is the stock step itself, bit for bit, and a
    warning names the reason once. `status` says which.

    A program is traced beside a stock step (`vae_pyro.svi.tracer`) and used only if loss, gradients, buffers and
    generators agree with it (`vae_pyro.svi.parity`); they are compared again at its 2nd, 10th, 100th, ... step, and the
    first disagreement goes over to the stock step. On a CPU the traced step is compiled by Inductor. Noise is drawn
    from torch's generator in the stock order.

    What a program has baked in is compared at every step: shapes and strides of the arguments, Python values among
    them, and everything that the programs can reach from Python (`vae_pyro.svi.outside`: attributes, global and closure
    variables, training modes). Each combination is a program, up to `vae_pyro.svi.keys.MAX_PROGRAMS`; a
    floating-point number that changes becomes an input. Tensors that the programs read may change at any time. Programs
    that draw from other generators than torch's, or that change Python values, take the stock step.

    Where validation is enabled, the supports of values and parameters are checked at every compiled step; where a check
    fails, or the loss is not finite, the step is taken back and the stock step is taken in its place.

    Args:
        model: Pyro model.
        guide: Pyro guide.
        optim: a Pyro optimizer, or a torch optimizer that holds the parameters.
        loss: a Pyro `ELBO`, or ``loss(model, guide, *args, **kwargs)`` that gives a differentiable tensor.
        loss_and_grads: as for `pyro.infer.SVI`: gives the loss, and adds its gradient to the parameters'.
        prepare: maps the arguments of `step` to ``(args, kwargs)`` of the programs, inside the compiled program:
            scaling and binarising a batch of bytes, for instance.
        clip_norm: largest Euclidean norm of the whole gradient.
        autocast: type of the networks' matrix products, such as ``torch.bfloat16``; densities keep their own.
        compile: ``"auto"`` traces arguments of a shape when they come for the second time, and compiles a program after
            the steps that repay it (`vae_pyro.compilation.graph.Graph.break_even`). ``True`` traces and compiles at
            once, a number once a program has been stepped so often, ``False`` never: it runs the traced graph.
            ``"never"`` takes stock steps.
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
        skip_nonfinite: a step whose loss or gradient is not finite changes no parameter, and supports are not checked
            at every step. Otherwise such a step is taken as `pyro.infer.SVI` takes it.
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
        compile: Compile = "auto",  # noqa: A002 (what it is called everywhere)
        num_ensemble: int | None = None,
        seeds: Sequence[int] | None = None,
        initialize: Callable[[int], Any] | None = None,
        own_batches: bool = False,
        ranks: Ranks = ALONE,
        skip_nonfinite: bool = False,
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
        self.optimizer, self._adapted = optim, adapted
        self.metrics = {}
        self._compile = compile
        checks = not skip_nonfinite and num_ensemble is None
        self._inference = inference = Inference(model, guide, loss, self.loss_and_grads, prepare, autocast, checks)
        optimizer, reducer, self._fallbacks = StockOptimizer(optim, clip_norm), Reducer(ranks), Fallbacks()
        self.ensemble: Ensemble | None = None
        if num_ensemble is not None:
            self.ensemble = Ensemble(inference, optimizer, num_ensemble, seeds, initialize, own_batches)
        self._stepper = Stepper(optimizer, reducer, self._fallbacks)
        stock = StockStep(inference, optimizer, reducer, skip_nonfinite=skip_nonfinite)
        self._run = SingleRun(stock, self._stepper, self._fallbacks)
        self._programs = self._run.programs
        self._epochs = EpochDriver(self.take_step, self._find_block, self._keep, steps_at_once)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step.

        Returns:
            The loss before the step, a float; for an ensemble a list of them, one for each member.
        """
        loss = self._take(args, kwargs, self._compile, 1.0, wait=True)
        if self.ensemble is not None:
            return loss.tolist()
        return type(loss)(map(torch_item, loss)) if isinstance(loss, tuple) else torch_item(loss)

    def step_tensor(self, *args: Any, **kwargs: Any) -> Any:
        """As `step`, with the loss as a tensor, so that nothing waits for the device.

        On a GPU a step whose loss is not finite, or whose values are outside of a support, changes no parameter and
        returns a loss that is not finite.
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
            compile: how this step is taken, see the class; ``None`` is the mode of the class. A
                `vae_pyro.compilation.worth.Plan` compiles at once where the steps that are planned repay it.

        Raises:
            ValueError: the step of an ensemble cannot be compiled.
        """
        mode = self._compile if compile is None else _require_mode(compile)
        return self._take(tuple(args), kwargs or {}, mode, share, wait=False)

    def step_empty(self) -> Any:
        """A step of a batch of which this process has no part: it adds nothing, and moves as the others do.

        Returns:
            The loss, summed over ``ranks``.

        Raises:
            ValueError: this process has not taken a step yet.
        """
        form = next((traced.form for traced in self._programs if isinstance(traced.form, SplitForm)), None)
        loss, self.metrics = self._stepper.take_nothing(form, self._run.leaves)
        return loss

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Estimate of the loss without a step; the arguments are those of `step`."""
        args, kwargs = self._inference.prepared(args, kwargs)
        with self._inference.products():
            return super().evaluate_loss(*args, **kwargs)

    def run_epoch(self, *data: Any, batch_size: int, seed: int = 0, drop_last: bool = False, **kwargs: Any) -> Any:
        """Step through data once, in a random order.

        Args:
            data: tensors or arrays with the same first dimension, batches of which are the arguments of `step`; or one
                object with a method ``raw`` (`vae_pyro.svi.epochs.Rows`), such as a split of `vae_pyro.load_data`
                together with ``prepare=split.observe``. A split that is streamed is read in its own order.
            batch_size: data in a step; the last batch is smaller where they do not divide.
            seed: of the order, and of the bits of random observations; on a GPU the bits, like the noise, come from
                torch's generator there.
            drop_last: leave a smaller last batch out.
            kwargs: passed to every step.

        Returns:
            The sum of the steps' losses divided by the number of data stepped through: for a loss that is a sum over
            data, in nats per datum. For an ensemble, a list.

        Raises:
            ValueError: tensors of different lengths, no data, or something else, such as a loader.
        """
        return self._epochs.run(data, batch_size, seed, drop_last, kwargs)

    def recompile(self) -> None:
        """Forget the programs, after a change of what they baked in (Python values, the loss's options)."""
        self._run.forget()
        self._epochs.forget()

    def trace(self, *args: Any, **kwargs: Any) -> bool:
        """Trace for arguments of `step`, without a step; whether they are traced now, and not a stock step's."""
        if self.ensemble is not None:
            self._ensemble_program(args, kwargs, self._compile)
            return True
        return self._run.trace((args, kwargs), self._compile)

    def status(self) -> SVIStatus:
        """What runs, and why: programs, compilations and their seconds, comparisons passed, and fallbacks."""
        status = self._run.status
        status.count(self._programs, self._stepper, self._fallbacks.said)
        return status

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status()})"

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Unconstrained parameters of the programs by name, once they have been traced."""
        return dict(self._run.leaves)

    def member(self, number: int) -> dict[str, Tensor]:
        """Unconstrained parameters of one member of the ensemble, by name; views, not copies.

        Raises:
            IndexError: no such member, or no step has been taken.
        """
        if self.ensemble is None:
            raise IndexError(f"no member {number}: num_ensemble is not given")
        return self.ensemble.member(number)

    def _take(self, args: tuple[Any, ...], kwargs: dict[str, Any], mode: Compile, share: float, *, wait: bool) -> Any:
        if self.ensemble is None:
            self._follow_attributes()
            loss, self.metrics = self._run.take((args, kwargs), mode, share, wait=wait)
        else:
            traced = self._ensemble_program(args, kwargs, mode)
            form = True if mode == "auto" else mode
            generators = self.ensemble.generators
            loss, self.metrics = self._stepper.take(
                traced, args, kwargs, compile=form, share=share, generators=generators
            )
        if self.metrics:
            self._inference.publish(self.metrics)
        return loss

    def _follow_attributes(self) -> None:
        """Take over what a user has put in the place of a program or the loss, which `pyro.infer.SVI` reads anew."""
        now, optimizer = self._inference, self._stepper.optimizer
        if self.optim is not self._adapted:
            self._adapted = self.optim
            self.optimizer = optimizer.optimizer = self.optim
            self._run.forget()
            self._epochs.forget()
        if self.model is now.model and self.guide is now.guide and self.loss_and_grads == now.loss_and_grads:
            return
        self._inference = replace(now, model=self.model, guide=self.guide, loss_and_grads=self.loss_and_grads)
        self._run.follow(self._inference)
        self._epochs.forget()

    def _ensemble_program(self, args: tuple[Any, ...], kwargs: dict[str, Any], mode: Compile) -> Traced:
        """The program of all members.

        Raises:
            ValueError: the step cannot be a program.
        """
        assert self.ensemble is not None
        args, kwargs = self.ensemble.first_batch(args, kwargs)
        reason, programs = self._run.stock_reason(mode), self._programs.at(args, kwargs)
        if reason is None and programs is None:
            reason = "an argument is not hashable"
        if reason is None and programs is not None:
            floats = floats_of(args, kwargs)
            traced = programs.find(floats)
            if traced is not None:
                return traced
            programs.drop_outdated()
            try:
                program, surroundings = self.ensemble.trace(self._run.tracer, args, kwargs)
                traced = Traced(self.ensemble.form_of(program, args, kwargs), surroundings, floats, single=program)
            except CaptureError as error:
                reason = str(error)
            else:
                programs.add(traced)
                self._run.leaves = dict(zip(program.names, program.leaves, strict=True))
                return traced
        raise ValueError(f"an ensemble is a compiled program, and this one cannot be: {reason}")

    def _find_block(self, batch: Callable[[], tuple[Any, ...]], steps: int) -> Traced | None:
        return None if self.ensemble is not None else self._run.find_block(batch, steps, self._compile)

    def _keep(self, metrics: dict[str, Tensor]) -> None:
        self.metrics = metrics


def _require_mode(compile: Compile) -> Compile:  # noqa: A002
    if compile not in ("auto", "never") and not isinstance(compile, bool | int | Plan):
        raise ValueError(f"compile is 'auto', True, False, 'never' or a number of steps, got {compile!r}")
    return compile
