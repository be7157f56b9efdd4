"""Which library multiplies matrices in a compiled CPU step.

torch's own product is MKL's, which on AMD processors keeps to AVX2. oneDNN uses what the processor has: with AVX-512 it
takes half the time at the same float32 precision. The choice is a rule of shapes and processor, not a measurement, so
that a seed gives the same bits in every run.

Measured on a 2-core AMD EPYC with AVX-512, torch 2.15, products of a 784-400-20 network at batch 128: 109 GFLOP/s per
core through torch.mm, 230 through oneDNN.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import fx

# Below so many multiplications oneDNN's call costs more than it saves; with few columns it is slow at any size.
_LEAST_MULTIPLICATIONS = 1_500_000
_LEAST_COLUMNS = 32

_aten = torch.ops.aten


@cache
def onednn_is_faster() -> bool:
    """Whether this is an AMD processor with AVX-512, and torch has oneDNN."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: the vendor is not known, and torch's own product is right anywhere
        return False


def choose_products(module: fx.GraphModule) -> int:
    """Rewrite the float32 products of a graph for Inductor to those of oneDNN, in place, where they are faster.

    Args:
        module: a graph of ATen operators on CPU tensors with ``meta["val"]``; afterwards only Inductor can run it.

    Returns:
        How many were rewritten.
    """
    if not onednn_is_faster():
        return 0
    operator = _operator()
    count = 0
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target not in (_aten.mm.default, _aten.addmm.default):
            continue
        *bias, a, b = node.args
        if node.kwargs or not _worth_it(a.meta["val"], b.meta["val"], [item.meta["val"] for item in bias]):
            continue
        with module.graph.inserting_before(node):
            transposed = module.graph.call_function(_aten.permute.default, (b, [1, 0]))
            transposed.meta["val"] = b.meta["val"].permute(1, 0)
            product = module.graph.call_function(operator, (a, transposed, bias[0] if bias else None))
            product.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(product)
        module.graph.erase_node(node)
        count += 1
    module.recompile()
    return count


def _worth_it(a: torch.Tensor, b: torch.Tensor, bias: list[torch.Tensor]) -> bool:
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[1]
    return (
        a.dtype == torch.float32
        and rows * inner * columns >= _LEAST_MULTIPLICATIONS
        and columns >= _LEAST_COLUMNS
        and all(item.shape == (columns,) for item in bias)
    )


@cache
def _operator() -> Any:
    """oneDNN's linear layer with a weight that changes, as an operator with a lowering for Inductor.

    Inductor's own lowering of that layer is for inference: it requires constant weights, to pack them.
    """
    from torch._inductor import ir
    from torch._inductor.lowering import register_lowering
    from torch._inductor.mkldnn_ir import LinearUnary

    @torch.library.custom_op("vae_pyro::linear", mutates_args=())
    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product

    @linear.register_fake
    def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return x.new_empty((x.shape[0], weight.shape[0]))

    @register_lowering(torch.ops.vae_pyro.linear.default)
    def lower(x: Any, weight: Any, bias: Any) -> Any:
        inputs = [ir.ExternKernel.realize_input(item) for item in (x, weight, bias) if item is not None]
        # oneDNN would copy a strided x itself; here the copy becomes part of the kernel that makes x.
        inputs[0] = ir.ExternKernel.require_contiguous(inputs[0])
        layout = ir.FixedLayout(
            device=x.get_device(), dtype=x.get_dtype(), size=[x.get_size()[0], weight.get_size()[0]]
        )
        constants = ["none", [-1], ""] if bias is not None else [None, "none", [-1], ""]
        return ir.TensorBox.create(LinearUnary(layout=layout, inputs=inputs, constant_args=constants))

    return torch.ops.vae_pyro.linear.default
