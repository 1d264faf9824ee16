"""einsum against numpy: the syntax, the order of products, what becomes a matmul, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf
from jitflow.graph import as_node, toposort
from jitflow.ops.einsum import written_out
from jitflow.rewrite import rewrite

RNG = np.random.default_rng(3)


def check_all(cases: list[tuple[tuple[object, ...], dict[str, object]]]) -> None:
    """Fail unless jf.einsum, interpreted and compiled in one session, gives what np.einsum does for each case."""
    fetches = []
    for args, _ in cases:
        fetches.append(jf.einsum(*(jf.constant(a) if isinstance(a, np.ndarray) else a for a in args)))
    for (args, _), compiled, interpreted in zip(
        cases, jf.Session(fetches).run(fetches), jf.interpret(fetches, {}), strict=True
    ):
        expected = np.einsum(*args)
        for got in (compiled, interpreted):
            assert got.dtype == expected.dtype, args[0]
            assert got.shape == expected.shape, args[0]
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12, err_msg=str(args[0]))


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def test_the_syntax_is_that_of_numpy() -> None:
    a, b, c = array(2, 3), array(3, 4), array(4, 5)
    square, stack = array(3, 3), array(5, 2, 3)
    check_all(
        [
            ((text, *xs), {})
            for text, *xs in (
                ("ij,jk", a, b),
                ("ba", a),
                (" ij , jk -> i k ", a, b),
                ("ii", square),
                ("...ii->...i", array(2, 3, 3)),
                ("i...->...", array(2, 3, 4)),
                ("...j,jk->...k", stack, b),
                ("...ij,...jk", stack, array(1, 3, 2)),
                ("...ij,...jk->...ik", array(4, 1, 2, 3), array(5, 3, 2)),
                ("...,...->...", a, a[:1]),
                ("...->...", a),
                ("Aa,aB->BA", a, b),
                ("ij,jk,kl", a, b, c),
                ("ij,jk,kl->", a, b, c),
                ("ab,ab,ab->a", a, a, a),
                ("abc,cd,ad->b", array(2, 3, 4), array(4, 5), array(2, 5)),
                ("i,j,k->kji", array(2), array(3), array(4)),
                ("ik,jk->ij", np.arange(6).reshape(2, 3), np.arange(9).reshape(3, 3)),
                ("ij,jk", np.eye(3, dtype=np.bool_), np.tri(3, dtype=np.bool_)),
            )
        ]
        + [
            ((a, [0, 1], b, [1, 2], [0, 2]), {}),
            ((a, [1, 0]), {}),
            ((a, [0, 1], b, [1, 2]), {}),
            ((stack, [Ellipsis, 0], b, [0, 1], [Ellipsis, 1]), {}),
            ((a, [30, 2]), {}),
        ]
    )


def test_operands_are_promoted_and_python_scalars_are_weak() -> None:
    x = jf.constant(np.ones((2, 3), np.float32))
    assert jf.einsum("ij,->ij", x, 2.0).dtype == jf.float32
    assert jf.einsum("ij,ij->j", x, np.ones((2, 3))).dtype == jf.float64
    assert jf.einsum("ij,ij->j", np.ones((2, 3), np.int8), np.ones((2, 3), np.int16)).dtype == jf.int16


def test_integers_wrap_in_their_own_dtype() -> None:
    x = np.full((1, 300), 100, np.int8)
    got = jf.interpret(jf.einsum("ij,ij->i", x, x), {})
    np.testing.assert_array_equal(got, np.einsum("ij,ij->i", x, x))
    assert got.dtype == np.int8


def test_a_half_sum_is_accumulated_in_float32() -> None:
    x = jf.placeholder("x", jf.float16, (4000,))
    y = jf.einsum("i->", x)
    assert jf.Session(y).run(y, {x: np.ones(4000, np.float16)}) == 4000  # a float16 sum of ones stays at 2048


def matmuls(*tensors: jf.Tensor) -> list[tuple[tuple[object, ...], tuple[object, ...]]]:
    """Return the shapes of the factors of all matrix products that `tensors` come down to."""
    nodes = [as_node(t) for t in tensors]
    done = rewrite(nodes)
    order = toposort([done[n] for n in nodes])
    return [(n.inputs[0].shape, n.inputs[1].shape) for n in order if n.op.name == "matmul"]


def placeholders(*shapes: tuple[object, ...]) -> list[jf.Tensor]:
    return [jf.placeholder(None, jf.float32, s) for s in shapes]


def test_what_is_a_matrix_product_becomes_one() -> None:
    x, w = placeholders((8, 5, 7, 3), (7, 3, 4))
    assert matmuls(jf.einsum("nhcd,cdo->nho", x, w)) == [((40, 21), (21, 4))]
    q, k = placeholders((2, 9, 4, 6), (2, 11, 4, 6))
    assert matmuls(jf.einsum("bqhd,bkhd->bhqk", q, k)) == [((2, 4, 9, 6), (2, 4, 6, 11))]
    a, b = placeholders((3, 4), (3, 4))
    assert matmuls(jf.einsum("ij,ij->ij", a, b), jf.einsum("ij,ij->i", a, b), jf.einsum("ij,kl->ijkl", a, b)) == []


def test_products_are_taken_in_the_order_with_the_fewest_multiplications() -> None:
    # (A (B c)) takes 2 * 1000 * 1000 of them, ((A B) c) a thousand times as many.
    a, b, c = placeholders((1000, 1000), (1000, 1000), (1000, 1))
    assert matmuls(jf.einsum("ij,jk,kl->il", a, b, c)) == [((1000, 1000), (1000, 1)), ((1000, 1000), (1000, 1))]
    # The first and last fit best here; of eight operands the cheapest pair is taken each time.
    p, q, r = placeholders((2, 50), (50, 60), (50, 2))
    assert matmuls(jf.einsum("ij,jk,jl->ilk", p, q, r))[-1][0] == (4, 50)
    chain = placeholders(*[(2, 2)] * 7, (2, 1))
    shapes = matmuls(jf.einsum("ab,bc,cd,de,ef,fg,gh,hi->ai", *chain))
    assert len(shapes) == 7
    assert shapes[0][1] == (2, 1)


def test_symbolic_axes() -> None:
    x = jf.placeholder("x", jf.float64, ("n", "t", 3))
    w = jf.placeholder("w", jf.float64, (3, "m"))
    y = jf.einsum("...i,io->...o", x, w)
    assert y.shape == ("n", "t", "m")
    z = jf.einsum("nti,nti->n", x, x)
    session = jf.Session([y, z])
    for n, t, m in ((2, 4, 5), (1, 1, 1), (0, 3, 2), (3, 0, 2)):
        feeds = {x: array(n, t, 3), w: array(3, m)}
        got = session.run([y, z], feeds)
        np.testing.assert_allclose(got[0], feeds[x] @ feeds[w], rtol=1e-12)
        np.testing.assert_allclose(got[1], np.einsum("nti,nti->n", feeds[x], feeds[x]), rtol=1e-12)


def test_symbolic_axes_of_one_letter_must_agree_when_it_runs() -> None:
    a = jf.placeholder("a", jf.float64, ("n", "k"))
    b = jf.placeholder("b", jf.float64, ("l", "m"))
    y = jf.einsum("ij,jk->ik", a, b)
    with pytest.raises(jf.FeedError, match="axis 'j' of operand 1"):
        jf.Session(y).run(y, {a: array(2, 3), b: array(4, 5)})


def test_gradients_are_einsums_too() -> None:
    a, b, c = (jf.constant(array(*s)) for s in ((2, 3, 3), (3, 4), (4, 2)))
    y = jf.einsum("aij,jk,ka->i", a, b, c)
    ct = array(3)
    found = jf.interpret(jf.gradients(y, [a, b, c], ct=ct), {})
    values = [jf.interpret(x, {}) for x in (a, b, c)]
    np.testing.assert_allclose(found[0], np.einsum("i,jk,ka->aij", ct, values[1], values[2]), rtol=1e-12)
    np.testing.assert_allclose(found[1], np.einsum("i,aij,ka->jk", ct, values[0], values[2]), rtol=1e-12)
    np.testing.assert_allclose(found[2], np.einsum("i,aij,jk->ka", ct, values[0], values[1]), rtol=1e-12)


def test_the_gradient_of_a_diagonal_lies_on_the_diagonal() -> None:
    a = jf.constant(array(3, 3))
    np.testing.assert_array_equal(jf.interpret(jf.gradients(jf.einsum("ii->", a), a), {}), np.eye(3))


@pytest.mark.parametrize(
    ("text", "ranks", "error", "message"),
    [
        ("ij,jk", [2], jf.GraphError, "2 terms for 1 operands"),
        ("i1", [2], jf.GraphError, "'1' is no letter"),
        ("i->j->k", [1], jf.GraphError, "'-' is no letter"),
        ("......", [2], jf.GraphError, "'.' is no letter; '...' may occur once per term"),
        ("ijk", [2], jf.ShapeError, "term 'ijk' for an operand with 2 axes"),
        ("i", [2], jf.ShapeError, "term 'i' for an operand with 2 axes"),
        ("...i->i", [2], jf.GraphError, "the result must have '...'"),
    ],
)
def test_subscripts_that_cannot_be_read(text: str, ranks: list[int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        written_out(text, ranks)


def test_errors_name_the_users_line() -> None:
    x = jf.zeros((2, 3))
    with pytest.raises(jf.ShapeError, match=r"axis 'j' of operand 1: 3 and 2 differ\n  at .*test_einsum\.py:\d+$"):
        jf.einsum("ij,jk", x, x)
    with pytest.raises(jf.GraphError, match="an axis of the result is named twice"):
        jf.einsum("ij->ii", x)
    with pytest.raises(jf.GraphError, match="einsum needs an operand"):
        jf.einsum("->")
    with pytest.raises(jf.GraphError, match="70 is no axis number"):
        jf.einsum(x, [0, 70])
    with pytest.raises(jf.GraphError, match="expected a list of axis numbers, got Tensor"):
        jf.einsum(x, x)


def test_ellipsis_axes_get_letters_that_are_free() -> None:
    assert written_out("...a,ba", [3, 2]) == "cda,ba->cdb"
    assert written_out("...,...", [1, 3]) == "c,abc->abc"
    assert written_out("a...->...a", [1]) == "a->a"
