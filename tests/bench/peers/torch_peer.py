"""PyTorch, eager and compiled: inference mode, its fused functions, channels last where that is the faster.

Compiled programs are modules whose constants are buffers, frozen (`torch._inductor.config.freezing`), so that weights
are packed once, as for every other system here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._inductor.config
import torch.nn.functional as F

from tests.bench.peers.form import Array, Data, Form
from tests.bench.workloads import Workload


class Namespace:
    """torch's functions, by the names that workloads use."""

    exp, log, tanh, erf, sqrt = torch.exp, torch.log, torch.tanh, torch.erf, torch.sqrt
    matmul, permute, reshape, concat = torch.matmul, torch.permute, torch.reshape, torch.cat
    relu, gelu = torch.relu, F.gelu

    @staticmethod
    def sum(x: Any, *, axis: int | None, keepdims: bool = False) -> Any:
        return torch.sum(x) if axis is None else torch.sum(x, axis, keepdim=keepdims)

    @staticmethod
    def max(x: Any, *, axis: int | None) -> Any:
        return torch.max(x) if axis is None else torch.amax(x, axis)

    @staticmethod
    def var(x: Any, *, axis: int | None) -> Any:
        return torch.var(x, axis, correction=0)

    @staticmethod
    def argmax(x: Any, *, axis: int | None) -> Any:
        return torch.argmax(x, axis)

    @staticmethod
    def argmin(x: Any, *, axis: int | None) -> Any:
        return torch.argmin(x, axis)

    @staticmethod
    def transpose(x: Any) -> Any:
        return x.transpose(-1, -2)

    @staticmethod
    def contiguous(x: Any) -> Any:
        return x.contiguous()

    @staticmethod
    def flip(x: Any) -> Any:
        return torch.flip(x, tuple(range(x.ndim)))

    @staticmethod
    def take(x: Any, indices: Any) -> Any:
        return torch.index_select(x, 0, indices)

    @staticmethod
    def to_float32(x: Any) -> Any:
        return x.to(torch.float32)

    @staticmethod
    def softmax(x: Any) -> Any:
        return torch.softmax(x, -1)

    @staticmethod
    def log_softmax(x: Any) -> Any:
        return torch.log_softmax(x, -1)

    @staticmethod
    def layer_norm(x: Any, scale: Any, bias: Any) -> Any:
        return F.layer_norm(x, x.shape[-1:], scale, bias, 1e-5)

    @staticmethod
    def rms_norm(x: Any, scale: Any) -> Any:
        return F.rms_norm(x, x.shape[-1:], scale, 1e-5)

    @staticmethod
    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return torch.addmm(bias, x, weight)

    @staticmethod
    def conv(x: Any, weight: Any, bias: Any, *, stride: int, padding: int, groups: int) -> Any:
        return F.conv2d(x, weight, bias, stride, padding, 1, groups)

    @staticmethod
    def attention(q: Any, k: Any, v: Any, *, causal: bool) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def _tensors(arrays: tuple[Array, ...], layout: Any) -> list[Any]:
    tensors = [torch.from_numpy(a) for a in arrays]
    if layout is None:
        return tensors
    return [t.contiguous(memory_format=layout) if t.ndim == 4 else t for t in tensors]


def _layouts(w: Workload) -> dict[str, Any]:
    return {"channels last": torch.channels_last, "NCHW": None} if w.section == "convolutions" else {"": None}


class TorchEager:
    """One library call after the other, each multithreaded by OpenMP."""

    name, version = "torch", torch.__version__

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def forms(self, w: Workload, data: Data) -> Iterator[Form]:
        for label, layout in _layouts(w).items():
            arguments = _tensors((*data.inputs, *data.constants), layout)
            yield Form(label, self._inference(lambda a=arguments: w.body(Namespace, *a)))
        into = _INTO.get(w.family)
        if into is not None:
            arguments = _tensors((*data.inputs, *data.constants), None)
            with torch.inference_mode():
                out = torch.empty_like(w.body(Namespace, *arguments))
            yield Form("out=", self._inference(lambda: into(w, out, *arguments)))

    @staticmethod
    def _inference(call: Callable[[], Any]) -> Callable[[], Any]:
        return torch.inference_mode()(call)


def _relu_chain(w: Workload, out: Any, a: Any, b: Any, c: Any) -> Any:
    return torch.addcmul(c, a, b, out=out).relu_()


#: Families that are one function or two which write into a given tensor.
_INTO: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("relu_chain", "relu_unaligned", "relu_strided"), _relu_chain),
    "softmax": lambda w, out, x: torch.softmax(x, -1, out=out),
    "log_softmax": lambda w, out, x: torch.log_softmax(x, -1, out=out),
    **dict.fromkeys(
        ("matmul", "matmul_symbolic", "batched", "skinny", "vector_matrix", "matrix_vector"),
        lambda w, out, a, b: torch.matmul(a, b, out=out),
    ),
    **dict.fromkeys(("transpose", "permute"), lambda w, out, x: out.copy_(x.permute(w.options["axes"]))),
    "concat": lambda w, out, a, b: torch.cat((a, b), w.options["axis"], out=out),
    "gather": lambda w, out, x, indices: torch.index_select(x, 0, indices, out=out),
}


class _Module(torch.nn.Module):
    def __init__(self, w: Workload, constants: list[Any]) -> None:
        super().__init__()
        self._body = w.body
        self._count = len(constants)
        for k, constant in enumerate(constants):
            self.register_buffer(f"constant_{k}", constant)

    def forward(self, *inputs: Any) -> Any:
        return self._body(Namespace, *inputs, *(getattr(self, f"constant_{k}") for k in range(self._count)))


class TorchCompile:
    """torch.compile with frozen weights: its C++ back end, the compiler that is installed."""

    name, version = "torch.compile", torch.__version__

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch._inductor.config.freezing = True

    def forms(self, w: Workload, data: Data) -> Iterator[Form]:
        torch._dynamo.reset()
        for label, layout in _layouts(w).items():
            inputs = _tensors(data.inputs, layout)
            module = _Module(w, _tensors(data.constants, layout)).eval()
            compiled = torch.compile(module, dynamic=False)
            yield Form(label, self._without_gradients(lambda f=compiled, a=inputs: f(*a)))

    @staticmethod
    def _without_gradients(call: Callable[[], Any]) -> Callable[[], Any]:
        # Freezing asks for no_grad; it does not accept inference mode.
        return torch.no_grad()(call)
