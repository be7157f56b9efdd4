"""`CompiledSVI`: `pyro.infer.SVI` whose step is one compiled program."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from vae_pyro.compilation.capture import (
    CaptureError,
    Loss,
    Prepare,
    ProductsIn,
    capture,
    differentiable_loss,
    find_leaves,
)
from vae_pyro.compilation.capture import Program as PyroProgram
from vae_pyro.compilation.inductor import CompileError, disagreement
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.minibatches import BitStream, batches
from vae_pyro.parallel.ranks import ALONE, Ranks
from vae_pyro.svi.cuda_graphs import Replay
from vae_pyro.svi.optimizer_rules import Slot, slots_of
from vae_pyro.svi.program import Program

_ORDER, _BITS = 1, 2
_CPU = torch.device("cpu")
# Programs that differ only in Python values of the arguments; beyond these the values are data, not structure.
_MOST_PROGRAMS = 16


class SVIFallbackWarning(UserWarning):
    """A step runs in a slower form than was asked for; the message says why."""


class _NotFiniteError(ArithmeticError):
    """The stock loss is no number at this batch, so that nothing can be compared with it."""


class _RandomStartError(RuntimeError):
    """The first run of the programs draws more than the others."""


@runtime_checkable
class Rows(Protocol):
    """Resident data that hand out raw batches: `vae_pyro.data.dataset.Split`, for instance."""

    def __len__(self) -> int: ...

    def raw(self, index: Tensor, bits: Callable[[int], Tensor]) -> tuple[Any, ...]:
        """Rows as they are stored, with random bits where the observation draws; what ``prepare`` takes."""


class CompiledSVI(SVI):
    """Stochastic variational inference with the loss, its gradient and the optimizer in one compiled program.

    Takes the place of `pyro.infer.SVI`::

        svi = CompiledSVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(1000):
            loss = svi.step(data)

    The first step with arguments of a new shape traces the programs (`vae_pyro.compilation.capture`) and compares the
    result with the stock loss and all its gradients at the same noise; only if they agree is it used. On a CPU the
    traced step is compiled by Inductor. Noise is drawn from torch's generator in the order in which the stock step
    draws it, so that a seed gives the trajectory that it gives there, to rounding.

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

    Attributes:
        share: what the loss and gradient of this process are multiplied by before they are summed over `ranks`: 1 for
            a loss that is a sum over data, this process's share of the batch for one that is a mean.
        generators: of the members' noise, once they have been traced.
        signal: a number that is summed over `ranks` with the next step and then stands in ``metrics["signal"]``.
        metrics: the loss's own figures of the last step, tensors without gradient, for losses that keep ``metrics``.
        steps_at_once: steps of `run_epoch` that are taken without a look-up between them, on a GPU as one CUDA graph
            (`vae_pyro.svi.cuda_graphs`).

    Raises:
        ValueError: an optimizer of another kind, or options that exclude each other.
    """

    metrics: dict[str, Tensor]

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
        compile: bool | int | str = True,  # noqa: A002 (what it is called everywhere)
        num_ensemble: int | None = None,
        seeds: Sequence[int] | None = None,
        initialize: Callable[[int], Any] | None = None,
        own_batches: bool = False,
        ranks: Ranks = ALONE,
        **kwargs: Any,
    ) -> None:
        if not isinstance(optim, PyroOptim | Optimizer):
            raise ValueError(f"optim is a Pyro or a torch optimizer, got {type(optim).__name__}")
        adapted = optim if isinstance(optim, PyroOptim) else _Adapter(optim)
        super().__init__(model, guide, adapted, loss, loss_and_grads, num_samples, num_steps, **kwargs)
        self.objective, self.optimizer = loss, optim
        self.prepare, self.clip_norm, self.autocast = prepare, clip_norm, autocast
        if compile != "never" and not isinstance(compile, bool | int):
            raise ValueError(f"compile is True, False, 'never' or a number of steps, got {compile!r}")
        self.compile = compile
        self._stock_only = "a loss_and_grads of its own" if loss_and_grads is not None else None
        self._programs: dict[Any, Program | None] = {}
        self._graphs: dict[Any, Replay] = {}
        # One launch for so many steps of an epoch on a GPU; a CPU saves the look-ups between them.
        self.steps_at_once = 16
        self._leaves: dict[str, Tensor] = {}
        self._said: set[str] = set()
        self._modules = [module for program in (model, guide) for module in _modules_of(program)]
        self.metrics = {}
        if num_ensemble is not None and num_ensemble < 1:
            raise ValueError(f"num_ensemble is at least 1, got {num_ensemble}")
        if num_ensemble is None and (seeds is not None or initialize is not None or own_batches):
            raise ValueError("seeds, initialize and own_batches belong to num_ensemble, which is not given")
        if num_ensemble is not None and not ranks.alone:
            raise ValueError("an ensemble is trained by one process; give each process members of its own")
        self.num_ensemble = num_ensemble
        self.seeds = list(range(num_ensemble or 0)) if seeds is None else list(seeds)
        if num_ensemble is not None and len(self.seeds) != num_ensemble:
            raise ValueError(f"{num_ensemble} members want as many seeds, got {len(self.seeds)}")
        self.initialize = initialize
        self.own_batches = own_batches
        self.ranks, self.share, self.signal = ranks, 1.0, 0.0
        self._layout: _Layout | None = None
        self._stack: list[Tensor] = []
        self._stacked_slots: list[Slot] = []
        self._own_constants: dict[int, Tensor] = {}
        self.generators: list[torch.Generator] = []

    # --- steps ----------------------------------------------------------------------------------------------------

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step.

        Returns:
            The loss before the step, a float; for an ensemble a list of them, one for each member.
        """
        loss = self.step_tensor(*args, **kwargs)
        return loss.tolist() if isinstance(loss, Tensor) else loss

    def step_tensor(self, *args: Any, **kwargs: Any) -> Any:
        """As `step`, with the loss as a tensor, so that nothing waits for the device.

        A step whose loss is not finite changes no parameter, and returns that loss.
        """
        loss = self._take(args, kwargs)
        if self.metrics:
            self.objective.metrics = self.metrics  # type: ignore[union-attr]
        return loss

    def _take(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        program = self._program(args, kwargs)
        if program is None:
            return self._stock_step(args, kwargs)
        tensors = program.tensors(args, kwargs)
        noise = program.draw(self.generators or None)
        if not program.tried and self._wants_compiling(program):
            self._compile(program, tensors, noise)
        program.count += 1
        if program.whole and not program.together:
            loss, self.metrics = program.step(tensors, noise)
            return loss
        loss, self.metrics, gradients = program.gradients(tensors, noise)
        if not self.ranks.alone:
            names = self._names_of(program.used)
            loss, gradients = self._sum(loss, dict(zip(names, gradients, strict=True)))
            if program.whole:
                return self._move(program, loss, gradients)
        if bool(torch.isfinite(loss)):
            for leaf, gradient in zip(program.used, gradients, strict=True):
                leaf.grad = gradient
            self._apply(program.used)
        return loss

    # --- several processes ----------------------------------------------------------------------------------------

    def step_empty(self) -> Any:
        """A step of a batch of which this process has no part: it adds nothing, and moves as the others do.

        Returns:
            The loss, summed over `ranks`.

        Raises:
            ValueError: this process has not taken a step yet.
        """
        if self._layout is None:
            raise ValueError("a process without a part of the first batch cannot know what to add; enlarge batch_size")
        layout = self._layout
        self.metrics = {name: layout.zero.clone() for name in layout.metrics}
        zeros = {name: layout.zero.expand(shape) for name, shape in layout.shapes.items()}
        loss, gradients = self._sum(layout.zero, zeros)
        program = next((one for one in self._programs.values() if one is not None and one.whole), None)
        if program is not None:
            return self._move(program, loss, gradients)
        if bool(torch.isfinite(loss)):
            leaves = [self._leaf(name) for name in layout.shapes]
            for leaf, gradient in zip(leaves, gradients, strict=True):
                leaf.grad = gradient
            self._apply(leaves)
        return loss

    def _sum(self, loss: Tensor, gradients: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Sum loss, metrics, the signal and gradients over the processes, as one vector.

        Its order is that of the names, so that processes agree on it which took the step in different forms.

        Returns:
            The loss, and the gradients in the order in which they were given.
        """
        metrics = {name: self.metrics[name] for name in sorted(self.metrics) if name != "signal"}
        names = sorted(gradients)
        parts = [loss * self.share, loss.new_tensor(self.signal), *metrics.values(), *map(gradients.get, names)]
        flat = torch.cat([part.detach().reshape(-1).to(loss.dtype) for part in parts])  # type: ignore[union-attr]
        start = 2 + len(metrics)
        if self.share != 1.0:
            flat[start:] *= self.share
        self.ranks.add(flat)
        shapes = {name: gradients[name].shape for name in names}
        self._layout = _Layout({name: gradients[name].shape for name in gradients}, tuple(metrics), flat.new_zeros(()))
        pieces = flat[start:].split([shape.numel() for shape in shapes.values()])
        summed = {name: piece.view(shapes[name]) for name, piece in zip(names, pieces, strict=True)}
        self.metrics = dict(zip(["signal", *metrics], flat[1:start].unbind(), strict=True))
        return flat[0], [summed[name] for name in gradients]

    def _move(self, program: Program, loss: Tensor, gradients: list[Tensor]) -> Tensor:
        given = [self.metrics[name] for name in program.graph.metrics]
        moved, figures = program.move([loss, *given, *gradients])
        self.metrics = {**figures, "signal": self.metrics["signal"]}
        return moved

    def _names_of(self, leaves: list[Tensor]) -> list[str]:
        by_id = {id(leaf): name for name, leaf in self._leaves.items()}
        return [by_id[id(leaf)] for leaf in leaves]

    def _leaf(self, name: str) -> Tensor:
        held = self._leaves.get(name)
        leaf: Tensor = pyro.get_param_store()._params[name] if held is None else held
        return leaf

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Estimate of the loss without a step; the arguments are those of `step`."""
        if self.prepare is not None:
            with torch.no_grad():
                args, kwargs = self.prepare(*args, **kwargs)
        with self._products():
            return super().evaluate_loss(*args, **kwargs)

    def run_epoch(
        self,
        *data: Any,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Step through data once, in a random order.

        Args:
            data: tensors with the same first dimension, batches of which are the arguments of `step`; or one object
                with a method ``raw`` (`Rows`), such as a split of `vae_pyro.load_data` together with
                ``prepare=split.observe``. A split that is streamed is read in the order of its own ``epoch``.
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
        rows: Any = data[0] if len(data) == 1 and not isinstance(data[0], Tensor) else _Tensors(data)
        size = len(rows)
        if size == 0 or batch_size < 1:
            raise ValueError(f"an epoch wants data and batches, got {size} data in batches of {batch_size}")
        device = _device_of(rows)
        total: Any = 0.0
        seen = 0
        bits = BitStream(derive_seed(seed, _BITS), device)
        if not getattr(rows, "resident", True):
            return self._run_stream(
                rows.epoch(batch_size, derive_seed(seed, _ORDER), bits), batch_size, drop_last, kwargs
            )
        order = list(batches(size, batch_size, derive_seed(seed, _ORDER), device, drop_last=drop_last))
        while order:
            block = order[: self.steps_at_once]
            program = self._ready(rows, block, batch_size, kwargs)
            if program is not None:
                total = total + self._replay(program, rows, block, bits)
            else:
                block = order[:1]
                loss = self.step_tensor(*rows.raw(block[0], bits), **kwargs)
                total = total + (loss.detach().double() if isinstance(loss, Tensor) else loss)
            seen += sum(len(index) for index in block)
            del order[: len(block)]
        mean = total / max(seen, 1)
        return mean.tolist() if isinstance(mean, Tensor) else mean

    def _run_stream(self, stream: Any, batch_size: int, drop_last: bool, kwargs: dict[str, Any]) -> Any:
        """An epoch of batches as they come."""
        total: Any = 0.0
        seen = 0
        with closing(stream):
            for raw in stream:
                if drop_last and len(raw[0]) < batch_size:
                    break
                loss = self.step_tensor(*raw, **kwargs)
                total = total + (loss.detach().double() if isinstance(loss, Tensor) else loss)
                seen += len(raw[0])
        mean = total / max(seen, 1)
        return mean.tolist() if isinstance(mean, Tensor) else mean

    def _ready(self, rows: Any, block: list[Tensor], batch_size: int, kwargs: dict[str, Any]) -> Program | None:
        """The program that can take a block of steps at once: a whole one that has run, for batches of its shape."""
        if self.steps_at_once < 2 or len(block) < self.steps_at_once or len(block[-1]) < batch_size or kwargs:
            return None
        if not self.ranks.alone:
            return None
        if self.num_ensemble is not None or self.compile == "never" or not self._programs:
            return None
        raw = rows.raw(block[0], BitStream(0, block[0].device))
        program = self._programs.get(self._key(raw, {}))
        ready = program is not None and program.whole and program.count > 0 and not program.stale
        return program if ready else None

    def _replay(self, program: Program, rows: Any, block: list[Tensor], bits: "BitStream") -> Tensor:
        """Take a block of steps at once; the sum of their losses."""
        device, batch_size = block[0].device, len(block[0])
        at = (id(rows) if not isinstance(rows, _Tensors) else tuple(map(id, rows.tensors)), batch_size, id(program))
        if at not in self._graphs:
            # The graph keeps the data that it indexes alive, and so their identity.
            self._graphs[at] = Replay(program, rows.raw, batch_size, self.steps_at_once, device)
        replay = self._graphs[at]
        # A CPU follows the words of the epoch's seed; a recorded graph can follow its device's generator alone.
        losses = replay.run(torch.stack(block), bits if device.type == "cpu" else _device_words)
        program.count += len(block)
        self.metrics = replay.metrics
        return losses.double().sum()

    def recompile(self) -> None:
        """Forget the programs, after a change of what they baked in (Python values, the loss's options)."""
        self._programs.clear()
        self._graphs.clear()
        self._leaves = {}

    # --- programs -------------------------------------------------------------------------------------------------

    def _program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program | None:
        reason = self._stock_only or ("compile='never'" if self.compile == "never" else None)
        if reason is not None and self.num_ensemble is not None:
            raise ValueError(f"an ensemble is a compiled program, which {reason} rules out")
        if reason is not None:
            return None
        if len(_PYRO_STACK) > 0:
            self._say("outside", "the step runs under effect handlers from outside, as the stock step")
            return None
        if self.own_batches:
            args, kwargs = self._of_one(args, kwargs)
        store = pyro.get_param_store()._params
        if any(store.get(name) is not leaf for name, leaf in self._leaves.items()):
            self.recompile()  # the parameter store has been cleared or loaded
        key = self._key(args, kwargs)
        try:
            known = self._programs.get(key, self)
        except TypeError:
            self._say("hash", "an argument of the step is neither a tensor nor hashable; stock steps are taken")
            return None
        if not isinstance(known, CompiledSVI) and (known is None or not known.stale):
            return known
        return self._new_program(key, args, kwargs)

    def _new_program(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program | None:
        if len(self._programs) >= _MOST_PROGRAMS:
            self._say("many", f"more than {_MOST_PROGRAMS} combinations of arguments; others take the stock step")
            return None
        try:
            self._programs[key] = self._trace(args, kwargs)
        except (_NotFiniteError, _RandomStartError):
            return None  # this step is a stock step; the next one is traced
        except CaptureError as error:
            if self.num_ensemble is not None:
                raise ValueError(f"an ensemble is a compiled program, and this one cannot be: {error}") from error
            self._say(f"trace {error}", f"the step cannot be compiled: {error}; stock steps are taken")
            self._programs[key] = None
        return self._programs[key]

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        modes = tuple([module.training for module in self._modules])
        if kwargs:
            flat, spec = pytree.tree_flatten((args, kwargs))
            return tuple([_signature(item) for item in flat]), str(spec), modes
        if all(isinstance(item, Tensor) for item in args):
            return tuple([(item.shape, item.dtype, item.device) for item in args]), modes
        flat, spec = pytree.tree_flatten((args, kwargs))
        return tuple([_signature(item) for item in flat]), str(spec), modes

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        self._leaves = self._make_parameters(args, kwargs)
        leaves = list(self._leaves.values())
        if not leaves:
            raise CaptureError("the programs have no parameters")
        flat, spec = pytree.tree_flatten((args, kwargs))
        graph = capture(
            self.objective,
            self.model,
            self.guide,
            leaves,
            flat,
            spec,
            prepare=self.prepare,
            autocast=self.autocast,
        )
        program = Program(graph, leaves, flat)
        self._admit(program, args, kwargs)
        return program if self.num_ensemble is None else self._ensemble(program, flat, args, kwargs)

    def _of_one(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the first member, in whose shapes the programs are traced."""
        tensors = [item for item in pytree.tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
        wrong = [tuple(item.shape) for item in tensors if item.dim() == 0 or len(item) != self.num_ensemble]
        if wrong:
            raise ValueError(f"own_batches=True wants {self.num_ensemble} batches in each tensor, got shape {wrong[0]}")
        first: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(
            Tensor, lambda tensor: tensor[0], (args, kwargs)
        )
        return first

    def _make_parameters(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """Run the loss so that parameters which the programs make are there, without moving the generator.

        Raises:
            _RandomStartError: the first run of all draws more than the others, to start parameters or to guess the
                depth of plates; only a stock step draws all of it in the stock order.
        """
        store, first = pyro.get_param_store(), not self._leaves
        before, options = set(store._params), dict(getattr(self.objective, "__dict__", {}))
        ends: list[Tensor] = []
        leaves: dict[str, Tensor] = {}
        for _ in range(2 if first and self.num_ensemble is None else 1):
            with _generators_kept(), self._products():
                leaves = find_leaves(self.objective, self.model, self.guide, *self._prepared(args, kwargs))
                ends.append(torch.get_rng_state())
        if not torch.equal(ends[0], ends[-1]):  # the first run drew more: undo it, and let a stock step do it
            for name in set(store._params) - before:
                del store[name]
            self.objective.__dict__.update(options)
            raise _RandomStartError
        return leaves

    def _admit(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The parity gate: loss and gradients of the graph against those of the stock loss at the same noise."""
        graph = program.graph
        kept = [constant.clone() for constant in graph.constants]
        with _generators_kept():
            with self._products():
                value = differentiable_loss(self.objective, self.model, self.guide, *self._prepared(args, kwargs))
            wanted = torch.autograd.grad(value, program.leaves, allow_unused=True)
        if not bool(torch.isfinite(value)):
            raise _NotFiniteError
        if [gradient is not None for gradient in wanted] != graph.used:
            raise CaptureError("the graph and the stock loss depend on different parameters")
        with _generators_kept(), torch.no_grad():
            _put_back(graph.constants, kept)
            loss, _, gradients = program.gradients(program.tensors(args, kwargs), program.draw())
            _put_back(graph.constants, kept)
        reference = [value.detach(), *(gradient for gradient in wanted if gradient is not None)]
        reason = disagreement([loss, *gradients], reference)
        if reason is not None:
            raise CaptureError(f"the graph disagrees with the stock loss at the same noise ({reason})")

    def _wants_compiling(self, program: Program) -> bool:
        return self.compile is True or (self.compile is not False and program.count >= int(self.compile))

    def _compile(self, program: Program, tensors: list[Tensor], noise: list[Tensor]) -> None:
        if not program.whole:
            slots = self._slots(program.used)
            if slots is None:
                self._say(
                    "optimizer",
                    f"no rule for the optimizer {_name_of(self.optimizer)} with these options: loss and gradient are "
                    "compiled, its step is its own",
                )
            else:
                program.take(slots, self.clip_norm, together=not self.ranks.alone)
        try:
            program.compile(tensors, noise)
        except CompileError as error:
            self._say("compiler", f"{error}; the traced graph runs without a compiler")

    def _slots(self, leaves: list[Tensor]) -> list[Slot] | None:
        if isinstance(self.optimizer, PyroOptim):
            for leaf in leaves:
                if leaf not in self.optimizer.optim_objs:
                    _make_optimizer(self.optimizer, leaf)
        return slots_of(self.optimizer, leaves)

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.prepare is None:
            return args, kwargs
        with torch.no_grad():
            return self.prepare(*args, **kwargs)

    # --- the stock step -------------------------------------------------------------------------------------------

    def _stock_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = self._prepared(args, kwargs)
        with pyro.poutine.trace(param_only=True) as captured, self._products():
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        self.metrics = dict(getattr(self.objective, "metrics", {}))
        found: dict[int, tuple[str, Tensor]] = {}
        for name, site in captured.trace.nodes.items():
            leaf = site["value"].unconstrained()
            found.setdefault(id(leaf), (name, leaf))
        leaves = [leaf for _, leaf in found.values() if leaf.grad is not None or isinstance(self.optimizer, PyroOptim)]
        if not self.ranks.alone:
            moved = {name: leaf for name, leaf in found.values() if leaf.grad is not None}
            gradients = {name: leaf.grad for name, leaf in moved.items() if leaf.grad is not None}
            loss, summed = self._sum(torch.as_tensor(loss, device=leaves[0].device).to(leaves[0].dtype), gradients)
            for leaf, gradient in zip(moved.values(), summed, strict=True):
                leaf.grad = gradient
        values = loss if isinstance(loss, tuple) else (loss,)
        if all(bool(torch.isfinite(torch.as_tensor(value))) for value in values):
            self._apply(leaves)
        pyro.infer.util.zero_grads(leaves)
        return loss

    def _apply(self, leaves: list[Tensor]) -> None:
        if self.clip_norm is not None:
            norm = self.metrics["gradient_norm"] = nn.utils.clip_grad_norm_(leaves, self.clip_norm).detach()
            if not bool(torch.isfinite(norm)):
                pyro.infer.util.zero_grads(leaves)
                return
        if isinstance(self.optimizer, PyroOptim):
            self.optimizer(leaves)
        else:
            self.optimizer.step()
        for leaf in leaves:
            leaf.grad = None

    def _products(self) -> Any:
        return ExitStack() if self.autocast is None else ProductsIn(self.autocast)

    def _say(self, once: str, message: str) -> None:
        if once not in self._said:
            self._said.add(once)
            warnings.warn(f"CompiledSVI: {message}", SVIFallbackWarning, stacklevel=4)

    # --- ensembles ------------------------------------------------------------------------------------------------

    def _ensemble(self, program: Program, flat: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """The program of all members at once, in the place of that of one."""
        if program.graph.random_inside:
            inside = ", ".join(sorted(set(program.graph.random_inside)))
            raise CaptureError(f"{inside} draws from a distribution that depends on the graph, which members cannot do")
        if not self._stack:
            self._stack = self._members(args, kwargs, program.graph.constants)
            self.generators = [torch.Generator(self._stack[0].device).manual_seed(seed) for seed in self.seeds]
            slots = self._slots(program.used)
            if slots is None:
                raise CaptureError(f"no rule for the optimizer {_name_of(self.optimizer)} with these options")
            stacks = [stack for stack, used in zip(self._stack, program.graph.used, strict=True) if used]
            self._stacked_slots = [
                Slot(slot.optimizer, slot.group, slot.parameter, stack)
                for slot, stack in zip(slots, stacks, strict=True)
            ]
        together = Program(program.graph, self._stack, flat, self.num_ensemble, self.own_batches, self._own_constants)
        together.take(self._stacked_slots, self.clip_norm)
        return together

    def _members(self, args: tuple[Any, ...], kwargs: dict[str, Any], constants: list[Tensor]) -> list[Tensor]:
        """Parameters of every member before its first step, stacked; constants that differ between them likewise."""
        original = {name: leaf.detach().clone() for name, leaf in self._leaves.items()}
        members: list[dict[str, Tensor]] = []
        read: list[list[Tensor]] = []
        for seed in self.seeds:
            with _generators_kept(), pyro.get_param_store().scope(), self._products():
                if self.initialize is not None:
                    self.initialize(seed)
                read.append([constant.detach().clone() for constant in constants])
                _seed_generators(seed)
                made = find_leaves(self.objective, self.model, self.guide, *self._prepared(args, kwargs))
                members.append({name: made[name].detach().clone() for name in original})
        with torch.no_grad():
            for name, leaf in self._leaves.items():
                leaf.copy_(original[name])
            _put_back(constants, read[0])  # what all of them have, once the runs have changed no running statistics
        for constant, *values in zip(constants, *read, strict=True):
            if any(not torch.equal(value, values[0]) for value in values):
                self._own_constants[id(constant)] = torch.stack(values)
        return [torch.stack([member[name] for member in members]) for name in original]

    def trace(self, *args: Any, **kwargs: Any) -> bool:
        """Trace for arguments of `step`, without a step; whether they are traced now, and not a stock step's."""
        return self._program(args, kwargs) is not None

    def adopt(self, number: int, leaves: dict[str, Tensor], optimizer: Optimizer) -> None:
        """Make the parameters and the optimizer of another program those of a member, by reference.

        The member's values go into the parameters, and the optimizer's state, where it has one, into the member.

        Args:
            number: of the member; `trace` has to have been called.
            leaves: parameters by the names of `member`.
            optimizer: which holds them, of the same kind as this one's.

        Raises:
            IndexError: see `member`.
        """
        for name, value in self.member(number).items():
            leaves[name].data = value
        names = {id(leaf): name for name, leaf in self._leaves.items()}
        for slot in self._stacked_slots:
            leaf = leaves[names[id(slot.parameter)]]
            held = optimizer.state[leaf]
            for key, stack in slot.state().items():
                if held.get(key) is not None:
                    stack[number].copy_(held[key])
                held[key] = stack[number]
            if isinstance(held.get("step"), Tensor):
                slot.count = held["step"].clone()
            held["step"] = slot.count

    @property
    def steps_taken(self) -> Tensor:
        """Steps of an ensemble so far, as its optimizer counts them."""
        return torch.as_tensor(self._stacked_slots[0].count if self._stacked_slots else 0.0)

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Unconstrained parameters of the programs by name, once they have been traced."""
        return dict(self._leaves)

    def member(self, number: int) -> dict[str, Tensor]:
        """Unconstrained parameters of one member, by name; views, not copies.

        Raises:
            IndexError: no such member, or no step has been taken.
        """
        if self.num_ensemble is None or not 0 <= number < self.num_ensemble or not self._stack:
            taken = "" if self._stack else ", and no step has been taken"
            raise IndexError(f"no member {number} of {self.num_ensemble}{taken}")
        return {name: stack[number] for name, stack in zip(self._leaves, self._stack, strict=True)}

    def load_member(self, number: int) -> None:
        """Copy one member's parameters into the programs, which then are that member.

        Raises:
            IndexError: see `member`.
        """
        values = self.member(number)
        with torch.no_grad():
            for name, leaf in self._leaves.items():
                leaf.copy_(values[name])


@dataclass(frozen=True)
class _Layout:
    """What the processes sum: shapes of the gradients by name, names of the metrics, and a zero of their type."""

    shapes: dict[str, torch.Size]
    metrics: tuple[str, ...]
    zero: Tensor


class _Adapter(PyroOptim):
    """A torch optimizer in the place of a Pyro one."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(type(optimizer), {})
        self.optimizer = optimizer

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.optimizer.step()


class _Tensors:
    """Tensors with the same first dimension, as `Rows`."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"data of one length wanted, got {sorted(lengths)}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def raw(self, index: Tensor, bits: Callable[[int], Tensor]) -> tuple[Any, ...]:
        return tuple(tensor.index_select(0, index) for tensor in self.tensors)


def _device_words(count: int) -> Tensor:
    """Random words from the generator of the current CUDA device, which a graph can record."""
    return torch.randint(-(2**31), 2**31, (count,), dtype=torch.int32, device="cuda")


def _put_back(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Undo what running statistics have taken in; the others, of which expanded ones cannot be written, are left."""
    for tensor, value in zip(tensors, values, strict=True):
        if not torch.equal(tensor, value):
            tensor.copy_(value)


def _device_of(rows: Any) -> torch.device:
    device: torch.device = rows.tensors[0].device if isinstance(rows, _Tensors) else getattr(rows, "device", _CPU)
    return device


def _signature(item: Any) -> Any:
    return (item.shape, item.dtype, item.device) if isinstance(item, Tensor) else (type(item), item)


def _modules_of(program: Any) -> list[nn.Module]:
    owner = program if isinstance(program, nn.Module) else getattr(program, "__self__", None)
    return list(owner.modules()) if isinstance(owner, nn.Module) else []


def _make_optimizer(optim: PyroOptim, leaf: Tensor) -> None:
    optim.optim_objs[leaf] = optim._get_optim(leaf)
    optim.grad_clip[leaf] = optim._get_grad_clip(leaf)
    name = pyro.get_param_store().param_name(leaf)
    state = optim._state_waiting_to_be_consumed.pop(name, None)
    if state is not None:
        optim.optim_objs[leaf].load_state_dict(state)


def _name_of(optimizer: Any) -> str:
    return optimizer.pt_optim_constructor.__name__ if isinstance(optimizer, PyroOptim) else type(optimizer).__name__


def _seed_generators(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Run, and put torch's generators back to where they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield
