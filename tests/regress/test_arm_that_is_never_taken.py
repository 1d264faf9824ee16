"""An element in an arm of a select whose condition is literally false is not read: it may lie outside its array."""

from __future__ import annotations

import numpy as np

import jitflow as jf
from jitflow.graph import name_nodes, toposort
from lowering.build import build
from lowering.fuse import fuse
from lowering.interp import interpret


def test_what_a_shift_moves_out_of_a_single_element_is_not_read() -> None:
    x = jf.placeholder("x", jf.float64, (1,))
    shifted = jf.pad(x, ((1, 0),), constant_values=7.0)[:1]
    (group,) = fuse([shifted.node])
    kernel = build(group, "k", name_nodes(toposort([shifted.node])))
    out = np.zeros(1)
    interpret(kernel, [np.ones(1), out] if group.leaves else [out], {})  # which looks at every access
    assert out[0] == 7.0
    np.testing.assert_array_equal(jf.Session(shifted).run(shifted, {"x": np.ones(1)}), [7.0])
