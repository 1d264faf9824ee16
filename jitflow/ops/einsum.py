"""einsum: products of tensors whose axes are named by letters, as diagonals, sums and a chain of products of two.

The operator's attribute is the equation written out: one letter per axis, no ellipsis, an explicit result. It expands
to products of two operands at a time, in the order that takes the fewest multiplications; each step that is a matrix
product becomes a `matmul`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from string import ascii_letters
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import SUPPORTED, as_dtype, float32, float64
from jitflow.errors import DTypeError, GraphError, JitflowError, ShapeError
from jitflow.graph import Node, OpDef, Sample, define_op, located
from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.cast import cast_array, promoted
from jitflow.ops.diagonal import diagonal_op
from jitflow.ops.matmul import Labels, contract, sum_in_dtype
from jitflow.ops.movement import permute_dims, reshape_to
from jitflow.ops.testdata import Array, draw
from jitflow.public import public
from jitflow.types import Dim, TensorType, shape_text, unify

#: A tensor and the letters of its axes.
Term: TypeAlias = tuple[Node, Labels]

#: Operands up to which every order is tried: 3**6 pairs of subsets.
MOST_TRIED = 6
#: What a symbolic dim counts as when orders are compared.
UNKNOWN_SIZE = 64


def _parts(equation: str) -> tuple[list[str], str]:
    left, _, right = equation.partition("->")
    return left.split(","), right


def _infer(*types: TensorType, equation: str) -> TensorType:
    terms, result = _parts(equation)
    if len(terms) != len(types):
        raise GraphError(f"einsum {equation!r}: {len(terms)} terms for {len(types)} operands")
    sizes: dict[str, Dim] = {}
    for k, (letters, t) in enumerate(zip(terms, types, strict=True)):
        if len(letters) != t.rank:
            raise ShapeError(f"einsum {equation!r}: {letters!r} does not name the axes of {shape_text(t.shape)}")
        if t.dtype is not types[0].dtype:
            raise DTypeError(f"einsum {equation!r}: dtypes {types[0].dtype} and {t.dtype} differ")
        own: dict[str, Dim] = {}
        for letter, d in zip(letters, t.shape, strict=True):
            why = f"einsum {equation!r}: axis {letter!r} of operand {k}"
            own[letter] = unify(own.get(letter, d), d, why)
            known = sizes.get(letter, 1)
            sizes[letter] = d if known == 1 else known if d == 1 else unify(known, d, why)
    if len(set(result)) != len(result):
        raise GraphError(f"einsum {equation!r}: an axis of the result is named twice")
    for letter in result:
        if letter not in sizes:
            raise GraphError(f"einsum {equation!r}: no operand has axis {letter!r} of the result")
    return TensorType(types[0].dtype, tuple(sizes[letter] for letter in result))


# ---- the expansion


def _expand(*xs: Node, equation: str) -> Node:
    letters, result = _parts(equation)
    sizes = _sizes(xs, letters)
    terms = [_without_repeats(x, tuple(own), sizes) for x, own in zip(xs, letters, strict=True)]
    for pair in _order([frozenset(own) for _, own in terms], frozenset(result), _numbers(sizes)):
        a, b = (terms[k] for k in pair)
        rest = [t for k, t in enumerate(terms) if k not in pair]
        terms = [*rest, _contracted(a, b, _wanted(rest, result))]
    ((node, own),) = terms
    node, own = _summed(node, own, frozenset(result))
    # Of a letter whose every axis has size 1, or was broadcast away, the result still has an axis.
    missing = tuple(k for k in result if k not in own)
    node = permute_dims(node, tuple(own.index(k) for k in result if k in own))
    shape = tuple(1 if k in missing else sizes[k] for k in result)
    return broadcast_to(reshape_to(node, shape), tuple(sizes[k] for k in result))


def _sizes(xs: Sequence[Node], letters: Sequence[str]) -> dict[str, Dim]:
    sizes: dict[str, Dim] = {}
    for x, own in zip(xs, letters, strict=True):
        for k, d in zip(own, x.shape, strict=True):
            if sizes.get(k, 1) == 1 or (isinstance(d, int) and d != 1):
                sizes[k] = d
    return sizes


def _without_repeats(x: Node, letters: Labels, sizes: Mapping[str, Dim]) -> Term:
    """Return the diagonal of `x` along letters that occur twice, without the axes of size 1 that are broadcast."""
    kept = [k for k, letter in enumerate(letters) if x.shape[k] != 1 or sizes[letter] == 1]
    x, letters = reshape_to(x, tuple(x.shape[k] for k in kept)), tuple(letters[k] for k in kept)
    for letter, count in Counter(letters).items():
        for _ in range(count - 1):
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            others = tuple(k for k in range(len(letters)) if k not in (first, second))
            x = diagonal_op(permute_dims(x, (*others, first, second)))
            letters = (*(letters[k] for k in others), letter)
    return x, letters


def _wanted(rest: Sequence[Term], result: str) -> frozenset[str]:
    return frozenset(result).union(*(own for _, own in rest))


def _summed(x: Node, letters: Labels, wanted: frozenset[str]) -> Term:
    """Return `x` summed over the letters that nothing else wants."""
    axes = tuple(k for k, letter in enumerate(letters) if letter not in wanted)
    return sum_in_dtype(x, axes), tuple(letter for letter in letters if letter in wanted)


def _contracted(a: Term, b: Term, wanted: frozenset[str]) -> Term:
    """Return the product of two terms, summed over what is not `wanted`."""
    a, b = _summed(*a, wanted.union(b[1])), _summed(*b, wanted.union(a[1]))
    keep = tuple(k for k in dict.fromkeys((*a[1], *b[1])) if k in wanted)
    return contract(*a, *b, keep), keep


# ---- the order of products


def _numbers(sizes: Mapping[str, Dim]) -> dict[str, int]:
    return {k: d if isinstance(d, int) else UNKNOWN_SIZE for k, d in sizes.items()}


def _work(letters: frozenset[str], sizes: Mapping[str, int]) -> int:
    return math.prod(max(sizes[k], 1) for k in letters)


def _order(
    terms: Sequence[frozenset[str]], result: frozenset[str], sizes: Mapping[str, int]
) -> Iterator[tuple[int, int]]:
    """Yield which two terms to multiply next, their product being appended to those that are left.

    Up to `MOST_TRIED` terms the order with the fewest multiplications, else the cheapest next pair each time. Of equal
    ones the first, so that the order follows from the equation and the sizes alone.
    """
    if len(terms) > 2 and len(terms) <= MOST_TRIED:
        yield from _numbered(_best_tree(terms, result, sizes), len(terms))
        return
    left = list(terms)
    while len(left) > 1:

        def cost(pair: tuple[int, int], left: list[frozenset[str]] = left) -> tuple[int, int]:
            rest = [t for k, t in enumerate(left) if k not in pair]
            both = left[pair[0]] | left[pair[1]]
            return _work(both, sizes), _work(both & result.union(*rest), sizes)

        pair = min(combinations(range(len(left)), 2), key=cost)
        yield pair
        rest = [t for k, t in enumerate(left) if k not in pair]
        left = [*rest, (left[pair[0]] | left[pair[1]]) & result.union(*rest)]


_Tree: TypeAlias = "int | tuple[_Tree, _Tree]"


def _best_tree(terms: Sequence[frozenset[str]], result: frozenset[str], sizes: Mapping[str, int]) -> _Tree:
    """Return the cheapest order as a tree of term numbers, by the best of every subset of terms."""
    everything = range(len(terms))
    best: dict[frozenset[int], tuple[int, frozenset[str], _Tree]] = {
        frozenset([k]): (0, terms[k], k) for k in everything
    }
    for count in range(2, len(terms) + 1):
        for chosen in combinations(everything, count):
            subset = frozenset(chosen)
            outside = result.union(*(terms[k] for k in everything if k not in subset))
            found: tuple[int, frozenset[str], _Tree] | None = None
            # The first number stays left, so that each split is seen once.
            for size in range(count - 1):
                for others in combinations(chosen[1:], size):
                    left = frozenset((chosen[0], *others))
                    cost_a, a, tree_a = best[left]
                    cost_b, b, tree_b = best[subset - left]
                    cost = cost_a + cost_b + _work(a | b, sizes)
                    if found is None or cost < found[0]:
                        found = cost, (a | b) & outside, (tree_a, tree_b)
            assert found is not None
            best[subset] = found
    return best[frozenset(everything)][2]


def _numbered(tree: _Tree, count: int) -> Iterator[tuple[int, int]]:
    """Yield the products of `tree`, inner ones first, by their places in the list of what is left."""
    left: list[_Tree] = list(range(count))

    def inner_first(t: _Tree) -> Iterator[tuple[_Tree, _Tree]]:
        if not isinstance(t, int):
            yield from inner_first(t[0])
            yield from inner_first(t[1])
            yield t

    for pair in inner_first(tree):
        places = left.index(pair[0]), left.index(pair[1])
        left = [*(t for k, t in enumerate(left) if k not in places), pair]
        yield places


# ---- the operator


def _numpy(*xs: Array, equation: str) -> Array:
    """Return numpy's result, of narrower floats by way of float64: each element is then the exact sum, rounded."""
    dtype = as_dtype(xs[0].dtype)
    with np.errstate(all="ignore"):
        if dtype.is_float:
            return cast_array(np.asarray(np.einsum(equation, *(x.astype(np.float64) for x in xs))), dtype)
        return np.asarray(np.einsum(equation, *xs))


def _scale(*xs: Array, equation: str) -> Any:
    """The sum of the magnitudes of the terms, as often as roundings may add up in the intermediate sums."""
    letters, result = _parts(equation)
    sizes = {k: d for own, x in zip(letters, xs, strict=True) for k, d in zip(own, x.shape, strict=True) if d != 1}
    count = math.prod(d for k, d in sizes.items() if k not in result)
    return np.einsum(equation, *(np.asarray(x, np.longdouble) for x in xs)) * (3 + len(xs) + count)


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    cases: tuple[tuple[str, Sequence[tuple[int, ...]]], ...] = (
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij,jk->ki", [(2, 3), (3, 4)]),
        ("bij,bjk->bik", [(2, 2, 3), (2, 3, 2)]),
        ("ij->ji", [(2, 3)]),
        ("ij->", [(2, 3)]),
        ("ij->j", [(2, 3)]),
        ("ii->i", [(3, 3)]),
        ("ii->", [(3, 3)]),
        ("iij->j", [(2, 2, 3)]),
        ("iii->i", [(3, 3, 3)]),
        ("i,j->ij", [(2,), (3,)]),
        ("i,i->", [(70,), (70,)]),
        ("bi,bi->b", [(3, 5), (3, 5)]),
        (",->", [(), ()]),
        ("i,->i", [(3,), ()]),
        ("ij,ik,kl->jl", [(2, 3), (2, 4), (4, 5)]),
        ("ab,bc,cd,de->ae", [(2, 9), (9, 3), (3, 8), (8, 2)]),
        ("ij,ij->ij", [(1, 3), (2, 3)]),
        ("ij,ij->i", [(2, 1), (2, 3)]),
        ("ij,jk->ik", [(2, 0), (0, 3)]),
        ("ij->j", [(0, 3)]),
        ("i,i,i,i,i,i,i->", [(4,)] * 7),
    )
    for equation, shapes in cases:
        yield Sample(tuple(draw(rng, float64, *s) for s in shapes), {"equation": equation})
    for dtype in SUPPORTED:
        for equation, shapes in (*cases[:1], *cases[5:6], *cases[12:13]):
            yield Sample(tuple(draw(rng, dtype, *s) for s in shapes), {"equation": equation}, smooth=False)
    x = draw(rng, float32, 2, 3)
    for equation, error, match in (
        ("ij,jk->ik", ShapeError, r"einsum 'ij,jk->ik': axis 'j' of operand 1: 3 and 2 differ"),
        ("ijk,ij->k", ShapeError, r"'ijk' does not name the axes of \(2, 3\)"),
        ("ij,ij->ii", GraphError, "an axis of the result is named twice"),
        ("ij,ij->k", GraphError, "no operand has axis 'k' of the result"),
        ("ij->i", GraphError, "1 terms for 2 operands"),
    ):
        yield Sample((x, x), {"equation": equation}, error, match)
    yield Sample((x, x.astype(np.int32)), {"equation": "ij,ij->i"}, DTypeError, "float32 and int32 differ")
    yield Sample((x,), {"equation": "ii->i"}, ShapeError, "axis 'i' of operand 0: 2 and 3 differ")


einsum_op: OpDef = define_op(
    "einsum",
    infer=_infer,
    expand=_expand,
    numpy=_numpy,
    samples=_samples,
    scale=_scale,
)


# ---- what users write


@public()
def einsum(subscripts: Any, /, *operands: Any) -> Node:
    """Return the sum of products that `subscripts` describe, as ``np.einsum`` does.

    ``"ij,jk->ik"`` names the axes of the operands and of the result: operands are multiplied where letters agree, and
    summed over letters that the result lacks. A letter twice in one operand takes its diagonal. Without ``->`` the
    result has the letters that occur once, in alphabetical order. ``...`` stands for any further axes, which broadcast.

    Parameters
    ----------
    subscripts
        The text; or, as in numpy, the operands and lists of axis numbers in turn, and perhaps the list of the result:
        ``einsum(a, [0, 1], b, [1, 2], [0, 2])``.
    operands
        Tensors, promoted to one dtype. More than two are multiplied in the order with the fewest multiplications.

    Returns
    -------
    Node
        In the dtype of the operands: integers wrap around; bool tells whether any product is true.

    Raises
    ------
    GraphError
        For subscripts that cannot be read, or do not fit the number of operands.
    ShapeError
        If a term has not one letter per axis, or axes of one letter differ in size.

    Examples
    --------
    >>> import jitflow as jf
    >>> a = jf.constant([[1, 2], [3, 4]])
    >>> jf.interpret(jf.einsum("ij,kj->ik", a, a), {})
    array([[ 5, 11],
           [11, 25]])
    >>> jf.interpret(jf.einsum("ii", a), {})
    array(5)
    """
    text, tensors = (subscripts, operands) if isinstance(subscripts, str) else _as_text((subscripts, *operands))
    if not tensors:
        raise located(GraphError("einsum needs an operand"))
    nodes = promoted(*tensors)
    return einsum_op(*nodes, equation=written_out(text, [len(x.shape) for x in nodes]))


def _as_text(arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Return the text form of operands and lists of axis numbers in turn. Letters sort as the numbers do."""
    count = len(arguments) // 2
    lists = [*arguments[1 : 2 * count : 2], *arguments[2 * count :]]
    alphabet = "".join(sorted(ascii_letters))
    texts = []
    for one in lists:
        if not isinstance(one, (list, tuple)):
            raise located(GraphError(f"einsum: expected a list of axis numbers, got {type(one).__name__}"))
        for axis in one:
            if axis is not Ellipsis and not (isinstance(axis, int) and 0 <= axis < len(alphabet)):
                raise located(GraphError(f"einsum: {axis!r} is no axis number; they are 0 to {len(alphabet) - 1}"))
        texts.append("".join("..." if axis is Ellipsis else alphabet[axis] for axis in one))
    text = ",".join(texts[:count])
    return text + ("->" + texts[count] if len(arguments) % 2 else ""), arguments[: 2 * count : 2]


def written_out(subscripts: str, ranks: Sequence[int]) -> str:
    """Return `subscripts` with letters for ``...`` and an explicit result. GraphError or ShapeError if it is wrong."""

    def wrong(why: str) -> JitflowError:
        return located(GraphError(f"einsum {subscripts!r}: {why}"))

    text = subscripts.replace(" ", "")
    left, arrow, result = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise wrong(f"{len(terms)} terms for {len(ranks)} operands")
    letters = [term.replace("...", "", 1) for term in terms]
    for part in (*letters, result.replace("...", "", 1)):
        for c in part:
            if c not in ascii_letters:
                raise wrong(f"{c!r} is no letter; '...' may occur once per term, '->' once")
    extra = []
    for term, own, rank in zip(terms, letters, ranks, strict=True):
        if len(own) > rank or (len(own) < rank and "..." not in term):
            raise located(ShapeError(f"einsum {subscripts!r}: term {term!r} for an operand with {rank} axes"))
        extra.append(rank - len(own))
    most = max(extra)
    used = set(left + result)
    free = [c for c in ascii_letters if c not in used]
    if most > len(free):
        raise wrong("more than 52 axes")
    dots = "".join(free[:most])
    if not arrow:
        counts = Counter("".join(letters))
        result = "..." + "".join(sorted(c for c, n in counts.items() if n == 1))
    elif most and "..." not in result:
        raise wrong("the result must have '...' for the axes that it stands for in the operands")
    written = [term.replace("...", dots[most - n :]) for term, n in zip(terms, extra, strict=True)]
    return ",".join(written) + "->" + result.replace("...", dots)
