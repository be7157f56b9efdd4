"""Inductor's version of a flat graph, compared with the graph itself before it is used."""

import contextlib
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from vae_pyro.compilation.library import Run, library_of, load_library
from vae_pyro.compilation.products import choose_products
from vae_pyro.compilation.source import Source
from vae_pyro.compilation.store import kept
from vae_pyro.core.isolation import undisturbed

_ROUNDINGS = 32  # of a sum of many terms
# Beyond this size glibc maps a tensor anew at each allocation, and every page of it faults, until one has been freed.
_ALLOCATOR_THRESHOLD = 32 * 2**20 - 2**14


class CompileError(RuntimeError):
    """The compiler failed, or what it made disagrees with the graph."""


def inductor(module: fx.GraphModule) -> Run:
    """Compile a graph without mutations other than copies into its inputs.

    Returns:
        A function of one list of inputs.

    Raises:
        CompileError: there is no working compiler, or it cannot compile this.
    """
    example = [node.meta["val"] for node in module.graph.nodes if node.op == "placeholder"]
    on_cpu = all(tensor.device.type == "cpu" for tensor in example)
    if on_cpu:
        _raise_allocator_threshold()
    with undisturbed():
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx_inner
        from torch._inductor.decomposition import select_decomp_table

        # Threads: a pool of compiler processes would outlive the call. Random numbers: torch's own, in torch's order.
        settings = {"cpp_wrapper": on_cpu, "fallback_random": True, "compile_threads": 1}
        try:
            module = make_fx(module, decomposition_table=select_decomp_table(), tracing_mode="fake")(*example)
            example = [node.meta["val"] for node in module.graph.nodes if node.op == "placeholder"]
            if on_cpu:
                choose_products(module)
            with config.patch(settings), torch.no_grad():
                compiled = compile_fx_inner(module, example, cpp_wrapper=on_cpu)
        except (
            Exception
        ) as error:  # what a compiler raises has no common base; the graph itself has passed its own comparison
            raise CompileError(f"compiling failed ({type(error).__name__}: {str(error).strip()[:200]})") from error
    run: Run = compiled
    return run


def compile_checked(
    source: Source, inputs: list[Tensor], reference: Callable[..., Any] | None = None, floors: Sequence[float] = ()
) -> Run:
    """The program of a graph: found, or compiled and kept; in either case compared with what the graph does.

    Args:
        source: of the graph, see `inductor`.
        inputs: of the graph; what is run writes into copies of them.
        reference: what to compare with in place of the graph.
        floors: see `disagreement`, of the outputs and then of the inputs.

    Raises:
        CompileError: the compiler failed, or its result disagrees.
    """
    expected = reference or (lambda *flat: source.interpreted(list(flat)))
    key = source.key()
    found = None if key is None else kept(lambda store: store.find(key))
    if found is not None:
        with contextlib.suppress(CompileError, ImportError):  # it is compiled anew
            _raise_allocator_threshold()
            run = load_library(found)
            compare_outputs(run, expected, inputs, floors)
            return run
    began = perf_counter()
    run = inductor(source.module)
    seconds = perf_counter() - began
    compare_outputs(run, expected, inputs, floors)
    content = None if key is None else library_of(run)
    if key is not None and content is not None:
        kept(lambda store: store.put(key, content, seconds=seconds, operators=source.operators))
    return run


def _raise_allocator_threshold() -> None:
    torch.empty(_ALLOCATOR_THRESHOLD, dtype=torch.uint8)


def compare_outputs(
    compiled: Callable[[list[Tensor]], Any],
    graph: Callable[..., Any],
    inputs: list[Tensor],
    floors: Sequence[float] = (),
) -> None:
    """Run both on copies of the inputs, with the same random numbers.

    Raises:
        CompileError: the compiled function failed, or its outputs or what it wrote into its inputs disagree.
    """
    ours = [_copied(tensor) for tensor in inputs]
    theirs = [_copied(tensor) for tensor in inputs]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        kept = torch.get_rng_state()
        try:
            got = list(compiled(list(ours)))
        except Exception as error:
            raise CompileError(f"the compiled step failed ({type(error).__name__}: {str(error)[:200]})") from error
        torch.set_rng_state(kept)
        expected = list(graph(*theirs))
    reason = disagreement([*got, *ours], [*expected, *theirs], floors)
    if reason is not None:
        raise CompileError(f"the compiled step disagrees with its graph ({reason})")


def _copied(tensor: Tensor) -> Tensor:
    """A copy with the same strides; an expanded tensor, which nothing can write to, is its own."""
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        return tensor.detach()
    copied = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return copied.copy_(tensor.detach())


def rounding_of(tensors: Sequence[Tensor]) -> float:
    """What rounding can leave of a sum of such numbers that is zero in exact arithmetic.

    The bias in front of a batch normalisation has no gradient, and rounding gives it one: noise in proportion to the
    gradients that cancel.
    """
    sizes = [float(tensor.abs().max()) * torch.finfo(tensor.dtype).eps for tensor in tensors if tensor.numel()]
    return _ROUNDINGS * max(sizes, default=0.0)


def disagreement(ours: Sequence[Tensor], theirs: Sequence[Tensor], floors: Sequence[float] = ()) -> str | None:
    """Why two lists of tensors are not the same up to rounding; ``None`` if they are.

    The tolerance is the square root of the type's precision, relative to the largest element of each tensor: what a
    sum in another order moves is far below it, a missing term or factor far above.

    Args:
        ours: tensors.
        theirs: in the same order.
        floors: for each, a distance that is rounding, see `rounding_of`; zeros if not given.
    """
    floors = floors or [0.0] * len(ours)
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {number} is {tuple(a.shape)} {a.dtype}, not {tuple(b.shape)} {b.dtype}"
        if not b.dtype.is_floating_point:
            if not torch.equal(a, b):
                return f"output {number} differs"
            continue
        if b.numel() == 0:
            continue
        finite = b.isfinite()
        if not torch.equal(finite, a.isfinite()):
            return f"output {number} is finite in other places"
        zero = torch.zeros((), dtype=b.dtype, device=b.device)
        scale = float(torch.where(finite, b, zero).abs().max())
        distance = float(torch.where(finite, a - b, zero).abs().max())
        tolerance = torch.finfo(b.dtype).eps ** 0.5
        if distance > max(tolerance * max(scale, 1e-30), floors[number]):
            return f"output {number} differs by {distance:.2g} at a size of {scale:.2g}"
    return None
