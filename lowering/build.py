"""A fusion group into a loop nest for the CPU, by asking its nodes' element rules for values (`lowering.trace`).

``map`` groups become one nest over `rows`, here: the outermost loop is parallel, the innermost vectorized.

``reduce`` groups take one of two forms, chosen by the order of their Reduces, which they keep exactly:
`lowering.build_lanes` where the innermost axis is folded, else `lowering.build_strips`.

``kernel`` groups state their own loops: `lowering.build_kernel`.

``contract`` groups whose shapes do not suit `lowering.contract` take the form of strips: one chain of Fma per element.
"""

from __future__ import annotations

from collections.abc import Mapping

from jitflow.graph import Node
from lowering.build_kernel import build_kernel
from lowering.build_lanes import build_lanes
from lowering.build_strips import build_strips
from lowering.fuse import FusionGroup
from lowering.loop_ir import Body, Kernel
from lowering.nest import nest
from lowering.reduction import reduce_of
from lowering.signature import Signature, make_kernel, notes_of, signature_of, store_outputs, written_over
from lowering.trace import Emitter


def build(group: FusionGroup, name: str, names: Mapping[Node, str]) -> Kernel:
    """Return the kernel of `group`. Its parameters are those of :func:`signature_of`, its dims those its text uses."""
    signature = signature_of(group, names)
    if all(0 in node.shape for node, _ in group.outputs):
        body: Body = ()  # along an empty axis all subscripts are as good as 0, so nothing could tell elements apart
    elif group.kind == "map":
        body = _build_map(group, signature)
    elif group.kind == "kernel":
        body, _ = build_kernel(group, signature)
    elif group.kind == "contract":
        body = build_strips(group, signature)
    else:
        lanes = max(reduce_of(e).lanes for e in group.reductions)
        body = build_strips(group, signature) if lanes == 1 else build_lanes(group, signature)
    over = written_over(group)
    aliased = [*(signature.leaves[n] for n in over), *signature.outputs.values()] if over else []
    return make_kernel(name, signature, body, notes_of(group, names), aliased)


def _build_map(group: FusionGroup, signature: Signature) -> Body:
    emitter = Emitter(signature.values(group.extents))
    store_outputs(emitter, group.outputs, signature)
    return nest(group.rows, tuple(emitter.statements), first="parallel", last="vectorized")
