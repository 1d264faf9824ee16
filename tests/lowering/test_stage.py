"""Groups that hand arrays on row by row become the stages of one kernel: which do, what they keep, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from lowering import stage as stage_module
from lowering.stage import KEPT_BYTES, StageSchedule, choose_stages, stage
from lowering.target import Target, host
from tests.support.lowered import groups_of

Array = np.ndarray[Any, Any]


@pytest.fixture
def keep_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Join groups however small what they hand on is: tests should be quick."""
    monkeypatch.setattr(stage_module, "KEPT_BYTES", 0)


def placeholders(*shapes: tuple[Any, ...]) -> list[jf.Tensor]:
    return [jf.placeholder(name, jf.float32, shape) for name, shape in zip("xyzw", shapes, strict=False)]


def draw(*shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def staged(*fetches: jf.Tensor, target: Target | None = None) -> list[str]:
    """Return a line for each group of `fetches`, its kind or those of its stages."""
    nodes = [t.node for t in fetches]
    groups = stage(groups_of(*fetches), nodes, target or host())
    return [" > ".join(s.kind for s in g.stages) or g.kind for g in groups]


def distances(x: jf.Tensor, y: jf.Tensor) -> jf.Tensor:
    return jf.sum(x * x, axis=1, keepdims=True) - 2.0 * (x @ y.T) + jf.sum(y * y, axis=1)


def both(fetches: list[jf.Tensor], tensors: list[jf.Tensor], arrays: list[Array]) -> tuple[list[Array], str]:
    """Return the results of `fetches`, which must be the same bits without fusion, and the dump of the groups."""
    feeds = dict(zip(tensors, arrays, strict=True))
    with jf.config.override(debug_poison=True):
        sess = jf.Session(fetches)
        got = sess.run(fetches, feeds)
    with jf.config.override(fuse=False):
        plain = jf.Session(fetches).run(fetches, feeds)
    for a, b in zip(got, plain, strict=True):
        assert a.tobytes() == b.tobytes()
    return got, sess.dump("fused")


# ---- structure


def test_attention_is_one_kernel_that_keeps_one_block_of_scores() -> None:
    q, k, v = placeholders(*[(8, 512, 64)] * 3)
    sess = jf.Session(jf.nn.attention(q, k, v))
    assert "arena[" not in sess.report()
    assert sess.dump("plan").count("launch ") == 1
    loops = sess.dump("loops")
    assert f"alloc matmul_0: f32[{48 * 512}] scratch" in loops
    assert "alloc exp_0" not in loops  # they take the place of the scores


def test_scores_that_nobody_reads_are_not_computed() -> None:
    q, k, v = placeholders(*[(8, 512, 64)] * 3)
    assert "let cols: index = min(512, first + rows)" in jf.Session(jf.nn.attention(q, k, v, causal=True)).dump("loops")
    # The row sums of the scores themselves read them all.
    scores = q @ jf.matrix_transpose(k)
    both = jf.sum(jf.tril(scores), axis=-1) + jf.sum(scores, axis=-1)
    assert "let cols" not in jf.Session(both).dump("loops")
    assert "let cols: index = min(512, first + rows + 3)" in jf.Session(jf.sum(jf.tril(scores, k=3), axis=-1)).dump(
        "loops"
    )
    # Above a diagonal, rows begin later: all columns are computed.
    assert "let cols" not in jf.Session(jf.sum(jf.triu(scores), axis=-1)).dump("loops")


def test_stages_follow_their_rows_through_any_chain() -> None:
    q, k, v = placeholders(("b", 4, "n", 16), ("b", 4, "m", 16), ("b", 4, "m", 8))
    assert staged(jf.nn.attention(q, k, v)) == ["contract > reduce > contract"]
    x, y = placeholders((1000, 64), (2000, 64))
    assert staged(jf.argmin(distances(x, y), axis=1)) == ["reduce", "reduce", "contract > reduce"]
    x, y = placeholders((4, "s", 64), (64, 1000))
    assert staged(jf.softmax(x @ y)) == ["contract > reduce"]


def test_what_somebody_else_reads_stays_in_memory() -> None:
    x, y = placeholders((1000, 64), (64, 1000))
    logits = x @ y
    assert staged(jf.softmax(logits), logits) == ["contract", "reduce"]
    assert staged(jf.softmax(logits), jf.sum(logits, axis=0)).count("contract > reduce") == 0


def test_only_rows_hand_on() -> None:
    x, y = placeholders((500, 64), (64, 500))
    z = x @ y
    assert "contract > reduce" not in staged(jf.sum(z, axis=0))
    assert "contract > reduce" not in staged(jf.softmax(z.T))
    # The second product needs all rows of the first one.
    assert staged(y @ jf.exp(z) @ y.T)[0] == "contract"


def test_small_arrays_stay_where_they_are() -> None:
    rows = KEPT_BYTES // (4 * 256)
    x, y, z, w = placeholders((rows, 8), (8, 256), (rows - 1, 8), (8, 256))
    assert staged(jf.softmax(x @ y)) == ["contract > reduce"]
    assert staged(jf.softmax(z @ w)) == ["contract", "reduce"]


def test_what_took_long_to_compute_is_written_to_memory() -> None:
    x, y, z, w = placeholders((512, 768), (768, 300), (512, 1025), (1025, 250))
    assert staged(jf.softmax(x @ y)) == ["contract > reduce"]
    assert staged(jf.softmax(z @ w)) == ["contract", "reduce"]
    # Each block of rows would read a large factor again.
    x, y, z, w = placeholders((512, 160), (160, 3000), (512, 161), (161, 3000))
    assert staged(jf.softmax(x @ y)) == ["contract > reduce"]
    assert staged(jf.softmax(z @ w)) == ["contract", "reduce"]
    x, y = placeholders((512, 768), (768, 3072))
    assert staged(jf.gelu(x @ y) @ y.T) == ["contract", "contract"]


def test_reductions_of_reductions_and_of_parts_of_a_row_are_stages() -> None:
    x, y = placeholders((1000, 64), (2000, 64))
    d = jf.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=-1)
    assert staged(jf.argmin(d, axis=1)) == ["reduce > reduce"]
    assert "contract > reduce" not in staged(jf.argmin(d, axis=0))
    x, w = placeholders(("n", 64), (64, 512))
    heads = jf.reshape(x @ w, (-1, 8, 64))
    assert staged(jf.layer_norm(heads)) == ["contract > reduce"]


@pytest.mark.usefixtures("keep_everything")
def test_few_rows_and_indices_are_no_stages() -> None:
    x, y = placeholders((2, 64), (64, 500))
    assert staged(jf.softmax(x @ y)) == ["contract", "reduce"]
    i = jf.placeholder("i", jf.int64, (1000,))
    x, y, z = placeholders((1000, 64), (64, 1000), (1000,))
    assert "contract > reduce" not in staged(jf.sum((x @ y) * jf.take(z, i), axis=1))


def test_the_schedule_shares_packed_factors_among_equal_runs_of_blocks() -> None:
    def schedule(n: Any) -> StageSchedule:
        x, y = placeholders((n, 64), (64, 1000))
        (group,) = stage(groups_of(jf.softmax(x @ y)), [], host())
        return choose_stages(group, host())

    assert (schedule(1000).block, schedule(1000).shared) == (48, 7)
    assert (schedule("n").block, schedule("n").shared) == (48, 10)


def test_what_is_packed_ahead_needs_no_runs() -> None:
    (x,) = placeholders((960, 64))
    y = jf.softmax(x @ jf.constant(np.ones((64, 100), np.float32)))
    assert "parallel t in 20:" in jf.Session(y).dump("loops")


# ---- results


def reference(x: Array, y: Array) -> Array:
    x, y = x.astype(np.float64), y.astype(np.float64)
    return (x * x).sum(1)[:, None] - 2 * x @ y.T + (y * y).sum(1)


@pytest.mark.usefixtures("keep_everything")
@pytest.mark.parametrize(("n", "m", "k"), [(100, 131, 7), (5, 64, 64), (97, 1, 3)])
def test_the_nearest_of_many_points(n: int, m: int, k: int) -> None:
    x, y = placeholders(("n", k), ("m", k))
    arrays = draw((n, k), (m, k))
    d = distances(x, y)
    (least, first, soft), dump = both(
        [jf.min(d, axis=1), jf.argmin(d, axis=1), jf.logsumexp(d, axis=1)], [x, y], arrays
    )
    assert dump.count("stages") == 1
    want = reference(*arrays)
    np.testing.assert_allclose(least, want.min(1), atol=1e-4)
    np.testing.assert_allclose(want[np.arange(n), first], want.min(1), atol=1e-4)
    np.testing.assert_allclose(soft, np.log(np.exp(want).sum(1)), rtol=1e-4)


@pytest.mark.usefixtures("keep_everything")
def test_the_nearest_by_differences_and_rows_cut_in_parts() -> None:
    x, y, w = placeholders(("n", 5), ("m", 5), (5, 33))
    arrays = draw((50, 5), (67, 5), (5, 33))
    d = jf.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=-1)
    parts = jf.softmax(jf.reshape(x @ w, ("n", 3, 11)))
    (first, soft), dump = both([jf.argmin(d, axis=1), parts], [x, y, w], arrays)
    assert dump.count("stages") == 2
    want = reference(*arrays[:2])
    np.testing.assert_allclose(want[np.arange(50), first], want.min(1), atol=1e-4)
    e = np.exp((arrays[0].astype(np.float64) @ arrays[2]).reshape(50, 3, 11))
    np.testing.assert_allclose(soft, e / e.sum(-1, keepdims=True), rtol=1e-4)


def attention(q: Array, k: Array, v: Array, hidden: Array) -> Array:
    s = np.where(hidden, -np.inf, (q.astype(np.float64) @ np.swapaxes(k, -1, -2)) / np.sqrt(q.shape[-1]))
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


@pytest.mark.usefixtures("keep_everything")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (50, 33), (97, 511)])
def test_attention_of_any_length(n: int, m: int, causal: bool) -> None:
    q, k, v = placeholders(("b", 2, "n", 16), ("b", 2, "m", 16), ("b", 2, "m", 5))
    arrays = draw((3, 2, n, 16), (3, 2, m, 16), (3, 2, m, 5))
    (got,), dump = both([jf.nn.attention(q, k, v, causal=causal)], [q, k, v], arrays)
    assert dump.count("group") == 1
    hidden = np.triu(np.ones((n, m), np.bool_), 1) if causal else np.zeros((n, m), np.bool_)
    np.testing.assert_allclose(got, attention(*arrays, hidden), atol=1e-5)


@pytest.mark.usefixtures("keep_everything")
def test_rows_that_a_later_pass_reads_again_are_not_overwritten() -> None:
    tensors = placeholders((50, 16), (16, 40), (40, 8))
    arrays = draw((50, 16), (16, 40), (40, 8))
    x, y, z = tensors
    scores = x @ y
    e = jf.exp(scores - jf.max(scores, axis=1, keepdims=True))
    total = jf.sum(e, axis=1, keepdims=True)
    got, dump = both([e @ z, scores / total], tensors, arrays)
    assert "keeps matmul_0, exp_0" in dump
    s = arrays[0] @ arrays[1]
    e_ = np.exp(s - s.max(axis=1, keepdims=True))
    total_ = e_.sum(axis=1, keepdims=True)
    for a, b in zip(got, (e_ @ arrays[2], s / total_), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("keep_everything")
def test_infinities_and_nan_reach_the_same_elements_as_without_stages() -> None:
    q, k, v = placeholders(*[(2, 60, 8)] * 3)
    arrays = draw(*[(2, 60, 8)] * 3)
    arrays[0][0, 3, 1] = np.nan
    arrays[1][0, 40, 2] = np.inf
    arrays[2][1, 50, :4] = [np.inf, -np.inf, np.nan, -0.0]
    (got,), _ = both([jf.nn.attention(q, k, v, causal=True)], [q, k, v], arrays)
    assert np.isnan(got[0, 3]).all()
    # A weight of zero times infinity.
    assert np.isnan(got[1, 0, :3]).all()


@pytest.mark.usefixtures("keep_everything")
@pytest.mark.parametrize("constant", [False, True])
def test_a_classifier_on_rows_of_two_axes(constant: bool) -> None:
    arrays = draw((3, 21, 16), (16, 70), (70, 9))
    x, w, u = placeholders(*(a.shape for a in arrays))
    if constant:
        w, u = jf.constant(arrays[1]), jf.constant(arrays[2])
    y = jf.softmax(jf.layer_norm(jf.tanh(x @ w)) @ u)
    tensors = [x] if constant else [x, w, u]
    (got,), dump = both([y], tensors, arrays[: len(tensors)])
    assert dump.count("stage contract") == 2
    h = np.tanh(arrays[0].astype(np.float64) @ arrays[1])
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    e = np.exp(h @ arrays[2])
    np.testing.assert_allclose(got, e / e.sum(-1, keepdims=True), rtol=1e-4)


@pytest.mark.usefixtures("keep_everything")
@pytest.mark.parametrize("shape", [(0, 40), (40, 0), (0, 0)])
def test_empty_attention(shape: tuple[int, int]) -> None:
    q, k, v = placeholders((2, "n", 8), (2, "m", 8), (2, "m", 8))
    n, m = shape
    (got,), _ = both([jf.nn.attention(q, k, v)], [q, k, v], draw((2, n, 8), (2, m, 8), (2, m, 8)))
    np.testing.assert_array_equal(got, np.zeros((2, n, 8), np.float32))


# ---- a whole layer


def normed(x: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)  # type: ignore[no-any-return]


@pytest.mark.usefixtures("keep_everything")
def test_an_encoder_layer_stores_no_heads_apart_and_no_scores() -> None:
    heads, dim, length, batch = 3, 12, 50, 2
    x, qkv, out, up, down = draw((batch, length, dim), (dim, 3 * dim), (dim, dim), (dim, 40), (40, dim))
    (given,) = placeholders(("b", "n", dim))
    weights = [jf.constant(w) for w in (qkv, out, up, down)]
    parts = jf.reshape(jf.layer_norm(given) @ weights[0], ("b", "n", 3, heads, dim // heads))
    q, k, v = (jf.permute_dims(parts[:, :, i], (0, 2, 1, 3)) for i in range(3))
    mixed = jf.reshape(jf.permute_dims(jf.nn.attention(q, k, v), (0, 2, 1, 3)), ("b", "n", dim))
    middle = given + mixed @ weights[1]
    result = middle + jf.relu(jf.layer_norm(middle) @ weights[2]) @ weights[3]
    (got,), dump = both([result], [given], [x])
    assert "stage reduce" in dump
    assert not [line for line in dump.splitlines() if line.startswith("group") and " map " in line]

    a, *rest = (w.astype(np.float64) for w in (x, qkv, out, up, down))
    p = (normed(a) @ rest[0]).reshape(batch, length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    o = attention(p[0], p[1], p[2], np.zeros((length, length), np.bool_))
    m = a + o.transpose(0, 2, 1, 3).reshape(a.shape) @ rest[1]
    np.testing.assert_allclose(got, m + np.maximum(normed(m) @ rest[2], 0) @ rest[3], rtol=1e-3, atol=1e-3)
