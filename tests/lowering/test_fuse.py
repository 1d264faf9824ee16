"""Which nodes become one kernel, and which must not."""

from __future__ import annotations

import numpy as np

import jitflow as jf
from tests.support.lowered import groups_of, outline


def vector(name: str = "x") -> jf.Tensor:
    return jf.placeholder(name, jf.float32, ("n",))


def matrix(name: str = "x", columns: object = 100) -> jf.Tensor:
    return jf.placeholder(name, jf.float32, ("n", columns))


def test_a_chain_of_elementwise_nodes_is_one_map() -> None:
    x = vector()
    assert outline(jf.exp(x * 2.0) + x) == ["map: multiply exp add*"]


def test_a_fetched_inner_node_is_one_more_output_of_the_same_kernel() -> None:
    x = vector()
    e = jf.exp(x)
    assert outline(e + 1.0, e) == ["map: exp* add*"]


def test_outputs_over_one_domain_that_share_an_input_are_one_kernel() -> None:
    x = matrix()
    assert outline(jf.sin(x), jf.cos(x)) == ["map: sin* cos*"]


def test_outputs_that_share_nothing_stay_apart() -> None:
    assert outline(jf.sin(matrix("x")), jf.cos(matrix("y"))) == ["map: sin*", "map: cos*"]


def test_softmax_is_one_kernel() -> None:
    (line,) = outline(jf.softmax(matrix()))
    assert line.startswith("reduce: ")
    assert line.count("*") == 1


def test_layer_norm_is_one_kernel_with_what_comes_before_and_after() -> None:
    x = matrix()
    (line,) = outline(jf.tanh(jf.layer_norm(x + 1.0)))
    assert line.startswith("reduce: add ")
    assert line.endswith("tanh*")


def test_producers_go_into_a_reduction_and_what_follows_joins_it() -> None:
    x = matrix()
    assert outline(jf.sqrt(jf.sum(x * x, axis=1))) == ["reduce: multiply reduce_sum sqrt*"]
    # Few results of a long axis: blocks first, which workers share.
    assert outline(jf.sqrt(jf.sum(x * x, axis=0))) == ["reduce: multiply fold_blocks*", "reduce: reduce_sum sqrt*"]


def test_reductions_over_the_same_axes_share_a_kernel() -> None:
    x = matrix()
    assert outline(jf.sum(x, axis=1), jf.max(x, axis=1)) == ["reduce: reduce_sum* reduce_max*"]


def test_reductions_over_different_axes_do_not() -> None:
    x = jf.placeholder("x", jf.float32, ("n", "n"))
    assert len(outline(jf.sum(x, axis=0) + jf.sum(x, axis=1))) == 2


def test_a_total_and_what_is_scaled_by_it_are_one_kernel() -> None:
    x = jf.placeholder("x", jf.float32, (30, 100))
    assert outline(x / jf.sum(x)) == ["reduce: reshape reduce_sum divide*"]


def test_a_reduced_value_spread_over_other_rows_is_a_kernel_of_its_own() -> None:
    x = matrix()
    assert outline(x / jf.sum(x, axis=0)) == ["reduce: fold_blocks*", "reduce: reduce_sum*", "map: divide*"]


def test_bias_and_activation_join_the_matrix_product() -> None:
    x, w, b = matrix(), jf.placeholder("w", jf.float32, (100, 30)), jf.placeholder("b", jf.float32, (30,))
    assert outline(jf.relu(x @ w + b)) == ["contract: matmul add maximum*"]


def test_bias_joins_the_product_of_a_single_row() -> None:
    x, w = jf.placeholder("x", jf.float32, (1, 100)), jf.placeholder("w", jf.float32, (100, 30))
    assert outline(jf.relu(x @ w + 1.0)) == ["contract: matmul add maximum*"]


def test_a_transposed_operand_is_read_in_place() -> None:
    x, w = matrix(), jf.placeholder("w", jf.float32, (30, 100))
    assert outline(x @ w.T) == ["contract: permute_dims matmul*"]


def test_a_costly_operand_is_computed_before_not_while_packing() -> None:
    x, w = matrix(), jf.placeholder("w", jf.float32, (100, 30))
    assert outline(jf.exp(x) @ w) == ["map: exp*", "contract: matmul*"]


def test_a_costly_node_wanted_at_two_places_is_stored() -> None:
    e = jf.exp(jf.placeholder("x", jf.float32, (1000,)))
    lines = outline(e[1:] - e[:-1])
    assert lines[0] == "map: exp*"
    assert "exp" not in lines[1]


def test_a_cheap_node_wanted_at_two_places_is_recomputed() -> None:
    y = jf.placeholder("x", jf.float32, (1000,)) * 2.0
    (line,) = outline(y[1:] - y[:-1])
    assert "multiply" in line


def test_a_costly_node_is_not_recomputed_for_every_row() -> None:
    e = jf.exp(vector("x"))
    y = jf.placeholder("y", jf.float32, ("m", "n"))
    assert outline(y + e) == ["map: exp*", "map: add*"]


def test_a_gathered_producer_is_stored_first() -> None:
    table, at = vector("t"), jf.placeholder("i", jf.int64, ("m",))
    assert outline(jf.take(table + 1.0, at, axis=0)) == ["map: add*", "map: take*"]


def test_reshapes_and_transposes_cost_no_kernel() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 4, 6))
    assert len(outline(jf.reshape(x, (-1, 24)) * 2.0 + 1.0)) == 1
    assert len(outline(jf.exp(jf.permute_dims(x, (2, 0, 1))))) == 1


def test_normalisation_over_two_trailing_axes_is_one_kernel() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 4, 6))
    assert len(outline(jf.layer_norm(x, axis=(1, 2)))) == 1


def test_groups_come_in_an_order_in_which_inputs_exist() -> None:
    x = matrix()
    w = jf.constant(np.ones((100, 100), np.float32))
    h: jf.Tensor = x
    for _ in range(3):
        h = jf.softmax(h @ w)
    done: set[object] = set()
    for g in groups_of(h):
        assert all(n.op.source or n in done for n in g.leaves)
        done |= {n for n, _ in g.outputs}


def test_two_readers_never_make_groups_that_wait_for_each_other() -> None:
    # e is read by the sum and by what uses the sum: one more output of the sum's kernel would be fine, of the
    # division's would be a circle.
    x = matrix()
    e = jf.exp(x)
    total = jf.sum(e, axis=0)
    assert [line.split(":")[0] for line in outline(e / total)][-1] == "map"


def test_a_long_chain_is_cut_into_kernels_of_bounded_size() -> None:
    x: jf.Tensor = vector()
    for k in range(500):
        x = x * 1.5 + float(k)
    groups = groups_of(x)
    assert 8 <= len(groups) <= 12
    assert all(len(g.members) <= 128 for g in groups)


def test_a_product_of_bools_and_one_of_floats_have_forms_of_their_own() -> None:
    def square(dtype: jf.DType) -> jf.Tensor:
        x = jf.placeholder("x", dtype, (4, 4))
        return x @ x

    for dtypes in ((jf.bool_, jf.float32), (jf.float64, jf.bool_)):
        kinds = {d: groups_of(square(d))[0].kind for d in dtypes}
        assert all(kind == ("reduce" if d is jf.bool_ else "contract") for d, kind in kinds.items())


def test_a_heavy_value_is_stored_in_its_own_shape_not_in_that_of_a_view() -> None:
    x = jf.placeholder("x", jf.float32, (6, 5, 8))
    w = jf.placeholder("w", jf.float32, (40, 7))
    assert outline(jf.reshape(jf.exp(x), (6, 40)) @ w) == ["map: exp*", "contract: reshape matmul*"]
    # What is cheap is still computed where the product reads it.
    assert outline(jf.reshape(x + 1.0, (6, 40)) @ w) == ["contract: add reshape matmul*"]
