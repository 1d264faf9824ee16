"""A contraction group and its Schedule into a kernel: the form that the schedule names, with its microkernels.

Each element is one chain of Fma over increasing k from 0, continued from its partial sum, in every form. So all
schedules give the same bits as the plain nest of `lowering.build`.
"""

from __future__ import annotations

from collections.abc import Mapping

from jitflow.errors import CompilerBug
from jitflow.expr import Buffer
from jitflow.graph import Node
from lowering.contract_nest import contraction
from lowering.contract_pack import PackedOperand, build_pack, packed_operand
from lowering.contract_rows import Dots, Vector
from lowering.contract_taps import Taps
from lowering.contract_tiles import Tiles
from lowering.fuse import FusionGroup
from lowering.loop_ir import Body, Kernel
from lowering.schedule import Schedule
from lowering.signature import Signature, make_kernel, notes_of, signature_of

__all__ = ["PackedOperand", "build_contract", "build_pack", "packed_operand"]


def build_contract(
    group: FusionGroup,
    name: str,
    names: Mapping[Node, str],
    schedule: Schedule,
    packed: Mapping[Node, Buffer] | None = None,
) -> Kernel:
    """Return the kernel of contraction `group`. Its parameters are those of `lowering.signature.signature_of`.

    `packed` gives, in the place of a leaf, the buffer that the kernel of :func:`build_pack` has filled from it.
    """
    ready = dict(packed or {})
    declared = signature_of(group, names)
    leaves = {n: ready.get(n, b) for n, b in declared.leaves.items()}
    signature = Signature(leaves, declared.outputs, declared.checks)
    c = contraction(group)
    body: Body
    callees: tuple[Kernel, ...] = ()
    match schedule.form:
        case "packed" | "direct":
            nest = Tiles(group, c, signature, schedule, next(iter(ready.values()), None))
            body, callees = nest.body(), tuple(nest.callees.values())
        case "vector":
            body = Vector(group, c, signature, schedule).body()
        case "dots":
            body = Dots(group, c, signature, schedule).body()
        case "taps":
            body = Taps(group, c, signature, schedule).body()
        case _:
            raise CompilerBug(f"form {schedule.form!r} is built by lowering.build")
    k = make_kernel(name, signature, body, (*notes_of(group, names), str(schedule)))
    return Kernel(k.name, k.params, k.dims, k.body, k.reads, k.notes, callees)
