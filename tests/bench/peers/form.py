"""What passes between the benchmark and a peer: arrays in, a call and its result as an array out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Data(NamedTuple):
    """The arrays of one workload, made once for all systems, and the result expected of the inputs in float64."""

    inputs: tuple[Array, ...]
    constants: tuple[Array, ...]
    expected: Array


class Form(NamedTuple):
    """One way of a peer to compute a workload: `call` runs it to its end, `result` makes an array of its result."""

    label: str
    call: Callable[[], Any]
    result: Callable[[Any], Array] = np.asarray


class Unsupported(Exception):
    """The peer cannot express this workload; the message says why."""
