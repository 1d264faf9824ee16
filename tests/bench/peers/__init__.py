"""The systems that are measured side by side: each turns a workload into calls in its own best form.

A peer is a class with a `name`, a `version`, a constructor that takes the number of threads, and ``forms(workload,
data)``, which yields one `Form` for each documented way to compute the workload that might be the fastest. To add one,
write its module and a line in `PEERS`.
"""

from __future__ import annotations

import importlib
from typing import Any

#: Name on the command line: module and class.
PEERS = {
    "numpy": ("numpy_peer", "Numpy"),
    "numexpr": ("numexpr_peer", "Numexpr"),
    "numba": ("numba_peer", "Numba"),
    "jax": ("jax_peer", "Jax"),
    "torch": ("torch_peer", "TorchEager"),
    "torch.compile": ("torch_peer", "TorchCompile"),
    "onnxruntime": ("onnx_peer", "OnnxRuntime"),
}


def load(name: str, threads: int) -> Any:
    """Return the peer, set to `threads` threads. Raises ImportError if what it needs is not installed."""
    module, attribute = ("jitflow_peer", "Jitflow") if name == "jitflow" else PEERS[name]
    return getattr(importlib.import_module(f"tests.bench.peers.{module}"), attribute)(threads)
