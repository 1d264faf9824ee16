"""Bugs to seed: each is one small change of the compiler that a test or a random graph must notice.

They are the kinds of bugs that compilers of this sort have had: a tail mask off by one, a subscript swapped, a guard
dropped, an identity or an order of folding changed, a stale packed weight, a cast that rounds twice.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """In `file`, the only occurrence of `before` becomes `after`. `tests` are the ones to try first."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...] = ()


_VECTORIZE = ("tests/lowering/test_vectorize.py",)
_PASSES = "lowering/passes"

MUTANTS: tuple[Mutant, ...] = (
    # vectors and their tails
    Mutant(
        "tail mask one lane too wide",
        f"{_PASSES}/vectorize.py",
        'compare("lt", Ramp(start, 1, full), Splat(extent, full))',
        'compare("le", Ramp(start, 1, full), Splat(extent, full))',
        _VECTORIZE,
    ),
    Mutant(
        "constant tail mask one lane too narrow",
        f"{_PASSES}/vectorize.py",
        "const(rest, type_of(index, width))",
        "const(rest - 1, type_of(index, width))",
        _VECTORIZE,
    ),
    Mutant(
        "main loop of vectors runs one time too few",
        f"{_PASSES}/vectorize.py",
        'f"{loop.var.name}_done", count * step',
        'f"{loop.var.name}_done", count * step + full',
        _VECTORIZE,
    ),
    Mutant(
        "else branch under the mask of then",
        f"{_PASSES}/vectorize.py",
        'mask: Expr = Unary("not", m) if flip else m',
        "mask: Expr = m",
        _VECTORIZE,
    ),
    Mutant(
        "inner mask forgets the outer one",
        f"{_PASSES}/vectorize.py",
        'return mine if p.mask is None else Binary("and", p.mask, mine)',
        "return mine",
        _VECTORIZE,
    ),
    Mutant(
        "second vector of a step at the place of the first",
        f"{_PASSES}/vectorize.py",
        "Ramp(start + k * lanes, 1, lanes)",
        "Ramp(start, 1, lanes)",
        _VECTORIZE,
    ),
    # partition, collapse, hoist, parallelize, unroll
    Mutant(
        "split one iteration early",
        f"{_PASSES}/partition.py",
        "first, second = low // -factor + 1, high // -factor + 1",
        "first, second = low // -factor, high // -factor",
        ("tests/lowering/test_partition.py",),
    ),
    Mutant(
        "condition known the wrong way round",
        f"{_PASSES}/partition.py",
        "(factor > 0) == holds)",
        "(factor > 0) != holds)",
        ("tests/lowering/test_partition.py",),
    ),
    Mutant(
        "parts of a split loop not shifted",
        f"{_PASSES}/partition.py",
        "{s.var: simplify_index(var + low)}",
        "{s.var: var}",
        ("tests/lowering/test_partition.py",),
    ),
    Mutant(
        "loops merged though their strides do not fit",
        f"{_PASSES}/collapse.py",
        "if simplify_index(by_inner[0] * inner.extent) != by_outer[0]:",
        "if False:",
        ("tests/lowering/test_collapse.py",),
    ),
    Mutant(
        "merged loops though a subscript is used as a number",
        f"{_PASSES}/collapse.py",
        "if any(depends_on(e, v) for e in accesses.others for v in (outer.var, inner.var)):",
        "if False:",
        ("tests/lowering/test_collapse.py",),
    ),
    Mutant(
        "load hoisted out of a loop that writes it",
        f"{_PASSES}/hoist.py",
        "if x.buffer in self.written or x.mask is not None:",
        "if x.mask is not None:",
        ("tests/lowering/test_hoist.py",),
    ),
    Mutant(
        "load hoisted though it may be out of bounds",
        f"{_PASSES}/hoist.py",
        "return all(self._is_inside(x) for x in loads)",
        "return True",
        ("tests/lowering/test_hoist.py",),
    ),
    Mutant(
        "last tile of a parallel loop forgotten",
        f"{_PASSES}/parallelize.py",
        "count = simplify_index((extent + (tile - 1)) // tile)",
        "count = simplify_index(extent // tile)",
        ("tests/lowering/test_parallelize.py",),
    ),
    # reductions
    Mutant(
        "identity of max is 0",
        "lowering/reduction.py",
        'return const(float("inf") if greatest else float("-inf"), dtype)',
        'return const(float("inf") if greatest else 0.0, dtype)',
        ("tests/ops/test_all_ops.py", "-k", "max"),
    ),
    Mutant(
        "identity of an integer min is the least integer",
        "lowering/reduction.py",
        "return const(dtype.max if greatest else dtype.min, dtype)",
        "return const(dtype.min, dtype)",
        ("tests/ops/test_all_ops.py", "-k", "reduce_min"),
    ),
    Mutant(
        "accumulators combined in another order",
        "lowering/reduction.py",
        "        other = lane + half\n",
        "        other = const_index(2 * half - 1) - lane\n",
        ("tests/ops/test_all_ops.py", "-k", "reduce_sum"),
    ),
    Mutant(
        "argmax takes the last of equal values",
        "lowering/reduction.py",
        'worse = compare("le" if self.reduce.op == "argmax" else "ge", w, v)',
        'worse = compare("lt" if self.reduce.op == "argmax" else "gt", w, v)',
        ("tests/ops/test_all_ops.py", "-k", "argmax"),
    ),
    Mutant(
        "NaN is not the greatest for argmax",
        "lowering/reduction.py",
        'better = Binary("and", Unary("not", worse), eq(v, v))',
        'better = compare("gt" if self.reduce.op == "argmax" else "lt", w, v)',
        ("tests/ops/test_all_ops.py", "-k", "argmax"),
    ),
    Mutant(
        "a dot rounds its products",
        "lowering/contract_rows.py",
        "emitter.statements.append(Store(acc, i, Fma(x[r], y, Load(acc, i))))",
        "emitter.statements.append(Store(acc, i, Load(acc, i) + x[r] * y))",
        ("tests/session/test_bits.py",),
    ),
    Mutant(
        "a row of products takes its terms in another order",
        "lowering/contract_rows.py",
        'acc = [emitter.let("acc", Fma(x[r][u], y, acc[r])) for r in self.heights]',
        'acc = [emitter.let("acc", Fma(x[r][-u], y, acc[r])) for r in self.heights]',
        ("tests/session/test_bits.py",),
    ),
    Mutant(
        "elements after the last whole round of lanes are dropped",
        "lowering/build_lanes.py",
        'return (If(compare("lt", l, rest), step(l, k)),)',
        'return (If(compare("lt", l, rest - 1), step(l, k)),)',
        ("tests/ops/test_all_ops.py", "-k", "reduce_sum"),
    ),
    Mutant(
        "a kept row may be overwritten before it is read",
        "lowering/build_lanes.py",
        "            and level[e[0]] >= last\n",
        "",
        ("tests/regress",),
    ),
    Mutant(
        "lanes past the end of a strip are stored",
        "lowering/build_strips.py",
        "return stores if inside is None or not stores else (If(inside, stores),)",
        "return stores",
        ("tests/ops/test_all_ops.py", "-k", "reduce_sum"),
    ),
    # contractions
    Mutant(
        "a later k block starts its sums anew",
        "lowering/contract_tiles.py",
        "                        part.first,\n",
        "                        const_index(0),\n",
        ("tests/lowering/test_contract.py",),
    ),
    Mutant(
        "a short tile of rows overlaps the one before",
        "lowering/contract_tiles.py",
        "top = simplify_index(done + r * height)",
        "top = simplify_index(done + r)",
        ("tests/lowering/test_contract.py",),
    ),
    Mutant(
        "packed panels of the wrong batch",
        "lowering/contract_tiles.py",
        "first = batch * ceil_div(c.n.extent, s.nr) + where.j // s.nr",
        "first = where.j // s.nr",
        ("tests/lowering/test_contract.py",),
    ),
    Mutant(
        "epilogue in every k block",
        "lowering/contract_tiles.py",
        "out += rest if is_last is None else (If(is_last, rest),)",
        "out += rest",
        ("tests/lowering/test_contract.py",),
    ),
    Mutant(
        "a transposed weight shares the packing of a plain one",
        "lowering/contract_pack.py",
        'f"panels of {schedule.nr} of {_recipe(c, reached, members)}"',
        'f"panels of {schedule.nr}"',
        ("tests/lowering/test_contract.py", "tests/session"),
    ),
    # fusion, plan, memory
    Mutant(
        "an output written where its points come by twice",
        "lowering/draft.py",
        "                if domain == position:\n                    return True\n",
        "                return True\n",
        ("tests/lowering/test_fuse.py",),
    ),
    Mutant(
        "groups may wait for each other",
        "lowering/fuse.py",
        "            if self._reaches(d, others):\n                continue\n            for index in wanted:",
        "            for index in wanted:",
        ("tests/lowering/test_fuse.py",),
    ),
    Mutant(
        "groups that differ in an attribute share a kernel",
        "lowering/program.py",
        "tuple((n.op.name, n.attrs, n.dtype, n.shape, tuple(known(x) for x in n.inputs)) for n in group.members),",
        "tuple((n.op.name, n.dtype, n.shape, tuple(known(x) for x in n.inputs)) for n in group.members),",
        ("tests/session",),
    ),
    Mutant(
        "a cell of the arena is free while it is read",
        "lowering/arena.py",
        "done = [node for node in held if last_use.get(node, -1) <= number]",
        "done = [node for node in held if last_use.get(node, -1) <= number + 1]",
    ),
    Mutant(
        "a cell smaller than its array",
        "lowering/arena.py",
        "return simplify_index((nbytes + (ALIGN - 1)) // ALIGN * ALIGN)",
        "return simplify_index(nbytes // ALIGN * ALIGN)",
        ("tests/fuzz/test_guard.py",),
    ),
    Mutant(
        "a result in the memory of a leaf whose elements it has in another order",
        "lowering/signature.py",
        "            and flat_index(wanted[0], leaf.shape, extents) == place\n",
        "",
        ("tests/lowering/test_in_place.py",),
    ),
    Mutant(
        "a result in the memory of a leaf that is read at other places, too",
        "lowering/signature.py",
        "and len(wanted) == 1",
        "and len(wanted) >= 1",
        ("tests/lowering/test_in_place.py",),
    ),
    Mutant(
        "a stage overwrites rows that a later pass reads",
        "lowering/build_stages.py",
        "return same and level[node] == last_pass(s, level, leaf)",
        "return same",
        ("tests/lowering/test_stage.py",),
    ),
    Mutant(
        "columns of scores that a row needs are left out",
        "lowering/stage.py",
        'bound = simplify_index(split[1] + (op == "le"))',
        "bound = simplify_index(split[1])",
        ("tests/lowering/test_stage.py",),
    ),
    Mutant(
        "the last block of a long reduction is left out",
        "jitflow/ops/blocks.py",
        "(as_index(n) + (block - 1)) // block",
        "as_index(n) // block",
        ("tests/ops/test_blocks.py",),
    ),
    Mutant(
        "the last tile of a transposition begins where a whole one would",
        f"{_PASSES}/transpose.py",
        "Let(start, minimum(var * side, n - side))",
        "Let(start, var * side)",
        ("tests/lowering/test_transpose.py",),
    ),
    # threads and the cache
    Mutant(
        "all workers share one scratch",
        "lowering/pool.py",
        "%offset = mul i64 %stride, %number",
        "%offset = mul i64 %stride, 0",
        ("tests/runtime/test_threads.py",),
    ),
    Mutant(
        "a damaged entry of the cache is believed",
        "runtime/cache.py",
        "if digest.digest() != entry[_HEAD.size : start]:",
        "if False:",
        ("tests/runtime/test_cache.py",),
    ),
    Mutant(
        "code for another CPU is found in the cache",
        "jitflow/compilation.py",
        '        ("CPU", target.cpu),\n        ("features", target.features),\n',
        "",
        ("tests/session/test_cache.py",),
    ),
    Mutant(
        "guards on dims are not checked",
        "lowering/plan_llvm.py",
        'bad = w.put(f"icmp ne i64 {w.index(g.left)}, {w.index(g.right)}")',
        'bad = w.put(f"icmp ne i64 {w.index(g.left)}, {w.index(g.left)}")',
        ("tests/session/test_dims.py",),
    ),
    Mutant(
        "sizes overflow without notice",
        "lowering/plan_llvm.py",
        'self.overflows.append(self.put(f"extractvalue {{i64, i1}} {pair}, 1"))',
        'self.put(f"extractvalue {{i64, i1}} {pair}, 1")',
        ("tests/faults", "tests/session/test_dims.py"),
    ),
    Mutant(
        "the floating-point environment of the caller stays",
        "lowering/plan_llvm.py",
        '            "  call void @llvm.x86.sse.ldmxcsr(ptr %default)",\n',
        "",
        ("tests/session",),
    ),
    # demands and conditions
    Mutant(
        "the other arm's condition is not turned round",
        "lowering/trace.py",
        "stack.append((e.b, conjoin(cond, negate(e.cond))))",
        "stack.append((e.b, conjoin(cond, e.cond)))",
        ("tests/lowering/test_build.py",),
    ),
    Mutant(
        "negated comparison keeps equality",
        "lowering/trace.py",
        '_OPPOSITE = {"lt": "ge", "ge": "lt",',
        '_OPPOSITE = {"lt": "gt", "ge": "lt",',
        ("tests/lowering/test_build.py",),
    ),
    Mutant(
        "an index out of range is not reported",
        "lowering/trace.py",
        'ok = Binary("and", compare("ge", wrapped, zero), compare("lt", wrapped, extent))',
        'ok = Binary("and", compare("ge", wrapped, zero), compare("le", wrapped, extent))',
        ("tests/ops/test_indexing.py",),
    ),
    Mutant(
        "a negative index does not count from the end",
        "lowering/trace.py",
        'select(compare("lt", raw, zero), raw + extent, raw)',
        'select(compare("lt", raw, zero), raw, raw)',
        ("tests/ops/test_indexing.py",),
    ),
    # arithmetic
    Mutant(
        "max drops a NaN on the right",
        "lowering/emit_arith.py",
        'nan = w.inst(f"fcmp uno {ty} {b}, {b}")',
        'nan = w.inst(f"fcmp uno {ty} {a}, {a}")',
        ("tests/lowering/test_emit.py",),
    ),
    Mutant(
        "MIN // -1 is not negated",
        "lowering/emit_arith.py",
        'q = w.inst(f"select {cmp} {is_minus}, {ty} {negated}, {ty} {q}")',
        'q = w.inst(f"select {cmp} {is_minus}, {ty} {q}, {ty} {q}")',
        ("tests/lowering/test_emit.py", "tests/ops/test_all_ops.py"),
    ),
    Mutant(
        "remainder takes the sign of the dividend",
        "lowering/emit_arith.py",
        'fix = w.inst(f"select {cmp} {down}, {ty} {b}, {ty} {zero}")',
        'fix = w.inst(f"select {cmp} {down}, {ty} {zero}, {ty} {zero}")',
        ("tests/lowering/test_emit.py", "tests/ops/test_all_ops.py"),
    ),
    Mutant(
        "a shift by a negative number shifts by nothing",
        "jitflow/ops/logic.py",
        "select(b < 0, const(a.type.dtype.bits, a.type), b)",
        "select(b < 0, const(0, a.type), b)",
        ("tests/faults/test_graph.py", "-k", "f38"),
    ),
    Mutant(
        "reversed load without reversal",
        "lowering/emit_expr.py",
        "        if stride == -1:\n            found = self._reversed(found, _memory_type(e.type))\n        return",
        "        return",
        ("tests/lowering/test_llvm.py",),
    ),
    Mutant(
        "masked lanes of a strided load are read at the wrong step",
        "lowering/emit_expr.py",
        "wanted = [k * step for k in range(lanes)]",
        "wanted = [k for k in range(lanes)]",
        ("tests/lowering/test_llvm.py",),
    ),
    # the graph
    Mutant(
        "x + 0.0 is dropped",
        "jitflow/rewrite.py",
        "return bool(value == 0) and (not is_float or math.copysign(1, value) < 0)",
        "return bool(value == 0)",
        ("tests/graph/test_rewrite.py",),
    ),
    Mutant(
        "a division by any constant becomes a product",
        "jitflow/rewrite.py",
        "if value is None or not np.isfinite(value) or abs(math.frexp(value)[0]) != 0.5:",
        "if value is None or not np.isfinite(value):",
        ("tests/graph/test_rewrite.py",),
    ),
    Mutant(
        "two flips of different axes cancel",
        "jitflow/rewrite.py",
        'both = tuple(sorted(set(node.attr("axes")) ^ set(x.attr("axes"))))',
        'both = tuple(sorted(set(node.attr("axes")) & set(x.attr("axes"))))',
        ("tests/graph/test_rewrite.py",),
    ),
    Mutant(
        "permutations composed in the wrong order",
        "jitflow/rewrite.py",
        '{"axes": tuple(inner[a] for a in axes)}',
        '{"axes": tuple(axes[a] for a in inner)}',
        ("tests/graph/test_rewrite.py",),
    ),
    Mutant(
        "a slice of a slice forgets the first step",
        "jitflow/rewrite.py",
        "at = simplify_index(as_index(base) + as_index(start) * stride)",
        "at = simplify_index(as_index(base) + as_index(start))",
        ("tests/graph/test_rewrite.py",),
    ),
    Mutant(
        "a cast by way of a narrower type is dropped",
        "jitflow/rewrite.py",
        "return wide.bits > narrow.bits if narrow.is_float else digits[wide.bits] >= narrow.bits",
        "return True",
        ("tests/graph/test_rewrite.py",),
    ),
    Mutant(
        "equal constants of different bits are one node",
        "jitflow/graph.py",
        "tuple((k, v.__class__, v.hex() if v.__class__ is float else v) for k, v in items),",
        "tuple((k, v) for k, v in items),",
        ("tests/graph",),
    ),
    Mutant(
        "a symbolic dim broadcasts as 1",
        "jitflow/types.py",
        'dim = unify(dim, d, f"{what}: axis {k - rank} of {listed}")',
        "dim = d",
        ("tests/session/test_dims.py",),
    ),
    # feeds and runs
    Mutant(
        "a transposed feed is read as if it were contiguous",
        "runtime/buffers.py",
        "if flags.c_contiguous and flags.aligned and array.dtype == of:",
        "if flags.aligned and array.dtype == of:",
        ("tests/session/test_feeds.py",),
    ),
    Mutant(
        "sums of unsigned integers start with a sign",
        "jitflow/ops/fold.py",
        'return int(op == "mul")',
        'return int(op == "add")',
        ("tests/ops/test_all_ops.py", "-k", "reduce_sum or reduce_prod"),
    ),
)
