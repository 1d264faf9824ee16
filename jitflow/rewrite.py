"""Graph passes: the nodes of a graph into nodes that compute the same bits with less work.

Each pass is a pure function from the fetched nodes to a dict that says what has become of every node below them; no
pass changes a value, not even a signed zero (of a NaN only that it is one). `rewrite` runs `PASSES` in order.

Needs: `feeds`, the nodes that get their values from outside, are leaves; what lies below them is not looked at. A fed
node that is no placeholder is replaced by a placeholder of its type first: otherwise another node could become equal to
it by rewriting, and then would be fed as well.

Keeps: the type of every node, its source line, and the values under the guards of the *original* graph. A pass may
drop a node whose guards must still hold, so the caller collects them before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from jitflow.config import current
from jitflow.dtypes import DType
from jitflow.errors import CompilerBug, JitflowError
from jitflow.expr import Const, as_index
from jitflow.graph import OPS, ArrayData, Node, make_constant, make_node, make_placeholder, sited, toposort
from jitflow.ops.blocks import in_blocks
from jitflow.ops.widen import is_widened, widened_node
from jitflow.simplify import simplify_index
from jitflow.types import Dim, Shape, same_dim, same_shape

#: What has become of each node.
Replaced: TypeAlias = dict[Node, Node]
#: A pass: fetched nodes and leaves to what has become of every node between them.
Pass: TypeAlias = Callable[[Sequence[Node], Collection[Node]], Replaced]
#: What a node whose inputs are rewritten already may be replaced by; None if it stays.
Rule: TypeAlias = Callable[[Node], Node | None]
Observer: TypeAlias = Callable[[str, Sequence[Node]], None]

#: Elements of a constant that folding may make: more would cost more to hold than to compute.
FOLD_LIMIT = 1 << 16


def rewrite(
    fetches: Sequence[Node],
    feeds: Collection[Node] = (),
    observe: Observer | None = None,
    *,
    fast_math: bool = False,
    blocks: bool = True,
) -> Replaced:
    """Return what each node below `fetches` has become after all passes.

    Fetches and feeds are always in the result; nodes that are no longer computed are not. `observe(name, fetches)` is
    called after each pass. `fast_math` allows identities that change the last bits; without `blocks` there is no
    `split_reductions` (a GPU cuts reductions in its own way).
    """
    leaves: Collection[Node] = set(feeds)
    total: Replaced = {node: node for node in (*toposort(fetches, set(feeds)), *feeds)}
    for name, run in (*PASSES, *FAST_PASSES) if fast_math else PASSES:
        if run is split_reductions and not blocks:
            continue
        now = [total[f] for f in fetches]
        found = run(now, leaves)
        if current().verify:
            _verify(name, now, found)
        total = {node: found[new] for node, new in total.items() if new in found}
        leaves = {found.get(leaf, leaf) for leaf in leaves}
        if observe is not None:
            observe(name, [total[f] for f in fetches])
    for node in feeds:
        total.setdefault(node, node)
    return total


def _verify(name: str, before: Sequence[Node], found: Mapping[Node, Node]) -> None:
    for node, new in found.items():
        if node.dtype is not new.dtype or not _may_be_same(node, new):
            raise CompilerBug(f"pass {name} turns {node!r} (made at {node.site}) into {new!r}")
    for node in before:
        if node not in found:
            raise CompilerBug(f"pass {name} loses {node!r} (made at {node.site})")


def _may_be_same(a: Node, b: Node) -> bool:
    return len(a.shape) == len(b.shape) and all(
        same_dim(x, y) is not False for x, y in zip(a.shape, b.shape, strict=True)
    )


# ---- the driver


def _apply(rule: Rule, fetches: Sequence[Node], leaves: Collection[Node]) -> Replaced:
    """Rewrite by `rule`, inputs first, until it gives None everywhere.

    What the rule returns is rewritten in turn, so a rule must lower some measure: the number of nodes, or the depth of
    `expand` definitions.
    """
    order = toposort(fetches, set(leaves))
    done: Replaced = {leaf: leaf for leaf in leaves}
    for node in order:
        if node not in done:
            rebuilt = _with_inputs(node, done)
            replacement = rule(rebuilt)
            done[node] = rebuilt if replacement is None else _settled(replacement, rule, done)
    return {node: done[node] for node in order}


def _settled(root: Node, rule: Rule, done: Replaced) -> Node:
    """Return what has become of `root`, which a rule has made: rewrite what is new below it, and what comes of that."""
    became: Replaced = {}
    stack = [root]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
        elif node in became:
            new = became[node]
            if new in done:
                done[node] = done[new]
            else:
                stack.append(new)
        elif waiting := [x for x in node.inputs if x not in done]:
            stack.extend(waiting)
        else:
            rebuilt = _with_inputs(node, done)
            replacement = rule(rebuilt)
            if replacement is None:
                done[node] = done[rebuilt] = rebuilt
            else:
                became[node] = replacement
    return done[root]


def _with_inputs(node: Node, done: Mapping[Node, Node]) -> Node:
    """Return `node` on what has become of its inputs."""
    for x in node.inputs:
        if done[x] is not x:
            with sited(node.site):
                return make_node(node.op, [done[x] for x in node.inputs], dict(node.attrs))
    return node


def _if_same(node: Node, make: Callable[[], Node]) -> Node | None:
    """Return what `make` gives if it has the type of `node` and assumes nothing more about dims; else None."""
    try:
        with sited(node.site):
            new = make()
    except JitflowError:
        # Guards that contradict each other: the graph cannot run, and says so when it is fed.
        return None
    if new.dtype is not node.dtype or not same_shape(new.shape, node.shape):
        return None
    known = {(g.left, g.right) for x in (node, *node.inputs) for g in x.guards}
    return new if all((g.left, g.right) in known for g in new.guards) else None


# ---- the passes


def cut(fetches: Sequence[Node], leaves: Collection[Node]) -> Replaced:
    """Replace each fed node that is no placeholder by a placeholder of its name and type."""
    fresh: Replaced = {}
    for leaf in leaves:
        if leaf.op.name != "placeholder":
            with sited(leaf.site):
                fresh[leaf] = make_placeholder(leaf.name, leaf.dtype, leaf.shape)
    out: Replaced = {}
    for node in toposort(fetches, set(leaves)):
        out[node] = fresh.get(node, node) if node in leaves else _with_inputs(node, out)
    return out


def widen(fetches: Sequence[Node], leaves: Collection[Node]) -> Replaced:
    """Compute on float32 what is given as float16 or bfloat16, and round the result (see `jitflow.ops.widen`).

    Before: ``multiply(x: f16, y: f16)``. After: ``astype(multiply(astype(x, f32), astype(y, f32)), f16)``.
    Afterwards only movement, storage and conversions see the two types. Runs before `expand`, so that a definition is
    rounded once as a whole.
    """

    def rule(node: Node) -> Node | None:
        if not is_widened(node):
            return None
        with sited(node.site):
            return widened_node(node.op, node.inputs, dict(node.attrs), node.dtype)

    order = toposort(fetches, set(leaves))
    if not any(is_widened(node) for node in order):
        return {node: node for node in order}
    return _apply(rule, fetches, leaves)


def expand(fetches: Sequence[Node], leaves: Collection[Node]) -> Replaced:
    """Replace each operator that is defined by other operators by its definition, down to primitive ones."""

    def rule(node: Node) -> Node | None:
        if node.op.expand is None:
            return None
        with sited(node.site):
            new = node.op.expand(*node.inputs, **dict(node.attrs))
        if new.dtype is not node.dtype or not _may_be_same(new, node):
            raise CompilerBug(f"{node.op.name} expands from {node.type!r} to {new.type!r}")
        return new

    return _apply(rule, fetches, leaves)


def split_reductions(fetches: Sequence[Node], leaves: Collection[Node]) -> Replaced:
    """Cut reductions with few results and long axes into blocks that workers can share; see `jitflow.ops.blocks`.

    Before: ``reduce_sum(x: f32[1000000])``. After: ``reduce_sum(fold_blocks(x))``, of 31 partial sums.
    """
    return _apply(_in_blocks, fetches, leaves)


def _in_blocks(node: Node) -> Node | None:
    with sited(node.site):
        return in_blocks(node)


def fold_constants(fetches: Sequence[Node], leaves: Collection[Node]) -> Replaced:
    """Evaluate exact operators whose inputs are constants.

    Gives up on results of more than `FOLD_LIMIT` elements, and on what would raise: that must happen in the run. What
    is not exact is computed once by compiled code, so that folded is the same as computed.
    """
    return _apply(_fold, fetches, leaves)


def _fold(node: Node) -> Node | None:
    op = node.op
    if not (op.exact and op.numpy is not None and node.inputs):
        return None
    if any(x.op.name != "constant" for x in node.inputs):
        return None
    count = 1
    for d in node.shape:
        if not isinstance(d, int):
            return None
        count *= d
    if count > FOLD_LIMIT:
        return None
    extra: dict[str, Any] = {"dims": {}} if op.needs_dims else {}
    arrays = [x.attr("value").array for x in node.inputs]
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(op.numpy(*arrays, **dict(node.attrs), **extra))
    except (JitflowError, KeyError):
        # An index out of range, or an attribute with a symbolic dim.
        return None
    return _if_same(node, lambda: make_constant(value))


def cancel_movement(fetches: Sequence[Node], leaves: Collection[Node]) -> Replaced:
    """Merge or drop movement: names, reshapes, permutations, flips, slices, broadcasts; any of a fill or scalar."""
    return _apply(_cancel, fetches, leaves)


def _cancel(node: Node) -> Node | None:
    if not node.op.movement or len(node.inputs) != 1:
        return None
    (x,) = node.inputs
    if node.op.name in _REARRANGING:
        fill = _uniform(x)
        if fill is not None and (x.op.name == "full" or node.op.name == "broadcast_to"):
            return _if_same(node, lambda: _full(node, fill))
        single = _single(x)
        if single is not None and not (node.op.name == "broadcast_to" and not x.shape):
            return _if_same(node, lambda: _repeated(single, node.shape))
    match node.op.name:
        case "identity":
            return x
        case "reshape" | "broadcast_to":
            if same_shape(node.shape, x.shape):
                return x
            if x.op is node.op:
                return _if_same(node, lambda: make_node(node.op, x.inputs, {"shape": node.attr("shape")}))
        case "permute_dims":
            axes = node.attr("axes")
            if axes == tuple(range(len(axes))):
                return x
            if x.op is node.op:
                inner = x.attr("axes")
                return _if_same(node, lambda: make_node(x.op, x.inputs, {"axes": tuple(inner[a] for a in axes)}))
        case "flip":
            if not node.attr("axes"):
                return x
            if x.op is node.op:
                both = tuple(sorted(set(node.attr("axes")) ^ set(x.attr("axes"))))
                return _if_same(node, lambda: make_node(x.op, x.inputs, {"axes": both}))
        case "slice":
            if x.op is node.op:
                return _if_same(node, lambda: _slice_of_slice(node, x))
        case _:
            pass
    return None


def _single(x: Node) -> Node | None:
    """Return the tensor of one element whose repetitions `x` consists of, or None; only where `x` is movement."""
    node = x
    while node.op.name in _REARRANGING:
        node = node.inputs[0]
    return node if node is not x and all(d == 1 for d in node.shape) else None


def _repeated(single: Node, shape: Shape) -> Node:
    """Return the only element of `single` at every place of `shape`."""
    if all(d == 1 for d in shape):
        return single if single.shape == shape else make_node(OPS["reshape"], (single,), {"shape": shape})
    scalar = single if not single.shape else make_node(OPS["reshape"], (single,), {"shape": ()})
    return make_node(OPS["broadcast_to"], (scalar,), {"shape": shape})


#: Operators whose elements are elements of their input, every one a fill value if that is one.
_REARRANGING = frozenset({"reshape", "broadcast_to", "permute_dims", "flip", "roll", "slice"})


def _slice_of_slice(outer: Node, inner: Node) -> Node:
    starts: list[Dim] = []
    steps: list[int] = []
    for start, step, base, stride in zip(
        outer.attr("starts"), outer.attr("steps"), inner.attr("starts"), inner.attr("steps"), strict=True
    ):
        at = simplify_index(as_index(base) + as_index(start) * stride)
        starts.append(int(at.value) if isinstance(at, Const) else at)
        steps.append(step * stride)
    attrs = {"starts": tuple(starts), "sizes": outer.attr("sizes"), "steps": tuple(steps)}
    return make_node(outer.op, inner.inputs, attrs)


def _full(node: Node, value: np.generic) -> Node:
    attrs = {"shape": node.shape, "value": ArrayData(np.asarray(value))}
    return make_node(OPS["full"], (), attrs)


def simplify_algebra(fetches: Sequence[Node], leaves: Collection[Node]) -> Replaced:
    """Apply identities of arithmetic that hold for every value, bit for bit.

    So ``x + 0.0`` stays, which turns -0.0 into 0.0, but ``x + -0.0`` and ``x - 0.0`` do not; ``x * 0`` and ``x - x``
    stay, because of NaN; a division becomes a multiplication only by a power of two, whose inverse is exact.
    """
    return _apply(_algebra, fetches, leaves)


def _algebra(node: Node) -> Node | None:
    inputs = node.inputs
    new: Node | None = None
    match node.op.name:
        case "add" | "multiply" | "logical_and" | "logical_or":
            a, b = inputs
            if _is_neutral(node.op.name, a):
                new = b
            elif _is_neutral(node.op.name, b) or (a is b and node.op.name in ("logical_and", "logical_or")):
                new = a
        case "subtract" | "divide" | "floor_divide" | "pow":
            if _is_neutral(node.op.name, inputs[1]):
                new = inputs[0]
            elif node.op.name == "divide":
                return _multiply_by_inverse(node)
        case "maximum" | "minimum":
            if inputs[0] is inputs[1]:
                new = inputs[0]
        case "where":
            condition, a, b = inputs
            known = _uniform(condition)
            if (a is b or known is not None) and not _may_fail(inputs):
                new = a if a is b or known else b
        case "negative" | "logical_not":
            if inputs[0].op is node.op:
                new = inputs[0].inputs[0]
        case "abs":
            # Without a sign, the negative of a number is another one.
            if inputs[0].op.name == "negative" and node.dtype.is_signed:
                return _if_same(node, lambda: make_node(node.op, inputs[0].inputs))
            if inputs[0].op is node.op:
                new = inputs[0]
        case "floor" | "ceil" | "round":
            if inputs[0].op is node.op:
                new = inputs[0]
        case "astype":
            x = inputs[0]
            if x.dtype is node.dtype:
                new = x
            elif x.op is node.op and _is_detour(x.inputs[0].dtype, x.dtype, node.dtype):
                source = x.inputs[0]
                if source.dtype is node.dtype:
                    new = source
                else:
                    return _if_same(node, lambda: make_node(node.op, (source,), dict(node.attrs)))
        case _:
            pass
    return None if new is None else _if_same(node, lambda: new)


def _may_fail(nodes: Sequence[Node]) -> bool:
    """Tell whether an index in what `nodes` are computed from is checked while it runs: then it is not dropped."""
    return any(n.op.fallible for n in toposort(nodes))


def _is_neutral(op: str, node: Node) -> bool:
    """Tell whether every element of `node`, the right operand of `op` (or either, if it commutes), changes nothing."""
    value = _uniform(node)
    if value is None:
        return False
    is_float = node.dtype.is_float
    match op:
        case "add":
            return bool(value == 0) and (not is_float or math.copysign(1, value) < 0)
        case "subtract":
            return bool(value == 0) and (not is_float or math.copysign(1, value) > 0)
        case "multiply" | "divide" | "pow":
            return bool(value == 1)
        case "floor_divide":
            return bool(value == 1) and not is_float
        case "logical_and":
            return bool(value)
        case "logical_or":
            return not value
        case _:
            return False


def _multiply_by_inverse(node: Node) -> Node | None:
    x, y = node.inputs
    value: Any = _uniform(y)
    if value is None or not np.isfinite(value) or abs(math.frexp(value)[0]) != 0.5:
        return None
    with np.errstate(over="ignore"):
        inverse = value.dtype.type(1.0) / value
    # A subnormal inverse would do too, but may be slow; one that overflows would not.
    if not np.finfo(value.dtype).tiny <= abs(inverse) < np.inf:
        return None
    return _if_same(node, lambda: make_node(OPS["multiply"], (x, _filled_like(y, inverse))))


def simplify_inexact(fetches: Sequence[Node], leaves: Collection[Node]) -> Replaced:
    """Apply identities of real arithmetic that change the last bits, or the sign of a zero: for ``fast_math`` only."""
    return _apply(_inexact, fetches, leaves)


def _inexact(node: Node) -> Node | None:
    if not node.dtype.is_float or len(node.inputs) != 2:
        return None
    x, y = node.inputs
    op = node.op.name
    if op in ("add", "multiply") and _uniform(x) is not None:
        x, y = y, x
    c: Any = _uniform(y)
    if c is None or not np.isfinite(c):
        return None
    if op == "add" and c == 0:
        return _if_same(node, lambda: x)
    if op == "divide" and np.finfo(c.dtype).tiny <= abs(c) <= 1 / np.finfo(c.dtype).tiny:
        inverse = c.dtype.type(1) / c
        return _if_same(node, lambda: make_node(OPS["multiply"], (x, _filled_like(y, inverse))))
    if op == "pow" and c == 2:
        return _if_same(node, lambda: make_node(OPS["multiply"], (x, x)))
    if op in ("add", "multiply") and x.op is node.op:
        inner = next((z for z in x.inputs if _uniform(z) is not None), None)
        if inner is not None:
            other = x.inputs[1] if inner is x.inputs[0] else x.inputs[0]
            d: Any = _uniform(inner)
            with np.errstate(all="ignore"):
                both = c + d if op == "add" else c * d
            if np.isfinite(both):
                return _if_same(node, lambda: make_node(node.op, (other, _filled_like(y, both))))
    return None


def _filled_like(y: Node, value: np.generic) -> Node:
    """Return a node of the type of `y`, uniform itself, whose elements are all `value`."""
    return make_constant(np.asarray(value)) if not y.shape else _full(y, value)


def _is_detour(source: DType, between: DType, to: DType) -> bool:
    """Tell whether converting from `source` to `to` by way of `between` is as good as doing it at once.

    An integer that `to` cannot hold wraps at once, but saturates by way of a float.
    """
    saturates = between.is_float and source.is_integer and to.is_integer and not _holds(to, source)
    return _holds(between, source) and not saturates


def _holds(wide: DType, narrow: DType) -> bool:
    """Tell whether every value of `narrow` is one of `wide`, so that converting by way of `wide` is as good as not."""
    if narrow.is_bool or wide is narrow:
        return True
    if wide.is_bool or (narrow.is_float and not wide.is_float):
        return False
    if wide.is_float:
        digits = {16: 11, 32: 24, 64: 53}
        return wide.bits > narrow.bits if narrow.is_float else digits[wide.bits] >= narrow.bits
    return wide.min <= narrow.min and narrow.max <= wide.max


def _uniform(node: Node) -> np.generic | None:
    """Return the value that all elements of a fill or of a small constant share, bit for bit, or None."""
    value: ArrayData | None = node.attr("value") if node.op.name in ("constant", "full") else None
    if value is None or not 0 < value.array.size <= _SMALL:
        return None
    array = value.array
    first = array.reshape(-1)[0]
    if array.size > 1 and array.tobytes() != first.tobytes() * array.size:
        return None
    return first  # type: ignore[no-any-return]


#: Elements of a constant that are looked at to see whether they are all the same.
_SMALL = 64

#: The order: definitions first, since they are full of movement and constants; then whatever makes the next one easier.
PASSES: tuple[tuple[str, Pass], ...] = (
    ("cut", cut),
    ("widen", widen),
    ("expand", expand),
    ("cancel_movement", cancel_movement),
    ("fold_constants", fold_constants),
    ("simplify_algebra", simplify_algebra),
    ("split_reductions", split_reductions),
)

#: What ``fast_math`` adds.
FAST_PASSES: tuple[tuple[str, Pass], ...] = (("simplify_inexact", simplify_inexact),)
