"""Functions of neural networks: what users may write, sizes, transposes of each other, gradients, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.graph import as_node, toposort
from jitflow.rewrite import rewrite
from tests.support.gpu_run import run_gpu

nn = jf.nn
RNG = np.random.default_rng(11)


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def products(*tensors: jf.Tensor) -> list[tuple[Any, Any]]:
    """Return the shapes of the factors of the matrix products that `tensors` come down to."""
    nodes = [as_node(t) for t in tensors]
    done = rewrite(nodes)
    order = toposort([done[n] for n in nodes])
    return [(n.inputs[0].shape, n.inputs[1].shape) for n in order if n.op.name == "matmul"]


def correlate(x: np.ndarray, w: np.ndarray, strides: tuple[int, ...]) -> np.ndarray:
    """Return the convolution of one image [C, H, W] with weights [O, C, h, w], one result after the other."""
    sizes = w.shape[2:]
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:], sizes, strides, strict=True)]
    out = np.empty((len(w), *counts))
    for o, p, q in np.ndindex(*out.shape):
        i, j = p * strides[0], q * strides[1]
        out[o, p, q] = np.sum(w[o] * x[:, i : i + sizes[0], j : j + sizes[1]])
    return out


# ---- conv


def test_conv_with_symbolic_batch_and_image_is_one_program_for_all_sizes() -> None:
    x = jf.placeholder("x", jf.float64, ("n", 3, "h", "w"))
    w, b = array(5, 3, 3, 2), array(5)
    y = nn.conv(x, w, b, stride=(2, 1), padding=((1, 1), (0, 1)))
    assert str(y.shape) == "(n, 5, (h + 1)//2, w)"
    session = jf.Session(y)
    for n, height, width in ((2, 7, 6), (1, 1, 1), (3, 4, 9), (0, 5, 5)):
        image = array(n, 3, height, width)
        padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (0, 1)))
        expected = [correlate(one, w, (2, 1)) + b[:, None, None] for one in padded]
        got = session.run(y, {x: image})
        assert got.shape == (n, 5, (height + 1) // 2, width)
        for k in range(n):
            np.testing.assert_allclose(got[k], expected[k], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (2, 1), (3, 1), (3, 2), (4, 1)])
def test_same_padding_gives_a_result_for_every_stride(stride: int, size: int, dilation: int) -> None:
    w = array(1, 1, size)
    symbolic = jf.placeholder("x", jf.float64, (1, 1, "n"))
    for n in (1, 5, 8):
        x = array(1, 1, n)
        y = nn.conv(x, w, stride=stride, padding="same", dilation=dilation)
        assert y.shape == (1, 1, -(-n // stride))
        # The zeros come first half before, then half after: as many as the last window lacks.
        lack = max((y.shape[2] - 1) * stride + (size - 1) * dilation + 1 - n, 0)
        padded = np.pad(x[0, 0], (lack // 2, lack - lack // 2))
        starts = range(0, y.shape[2] * stride, stride)
        expected = [sum(w[0, 0, k] * padded[p + k * dilation] for k in range(size)) for p in starts]
        np.testing.assert_allclose(jf.interpret(y, {})[0, 0], expected, rtol=1e-12, atol=1e-12)
        z = nn.conv(symbolic, w, stride=stride, padding="same", dilation=dilation)
        np.testing.assert_array_equal(jf.interpret(z, {symbolic: x}), jf.interpret(y, {}))


def test_conv_of_one_element_is_a_matmul_of_the_input_itself() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 8, 6, 6))
    y = nn.conv(x, np.ones((4, 8, 1, 1), np.float32))
    assert "windows" not in jf.show_graph(y)
    ops = [n.op.name for n in toposort([rewrite([as_node(y)])[as_node(y)]])]
    assert "windows" not in ops


def test_a_depthwise_convolution_keeps_channels_apart() -> None:
    x, w = array(2, 3, 5, 5), array(3, 1, 3, 3)
    got = jf.interpret(nn.conv(x, w, groups=3), {})
    for n, c in np.ndindex(2, 3):
        np.testing.assert_allclose(got[n, c], correlate(x[n, c : c + 1], w[c : c + 1], (1, 1))[0], rtol=1e-12)


def test_a_convolution_of_small_images_and_the_gradient_of_its_weights_are_one_product_over_the_batch() -> None:
    w = jf.placeholder("w", jf.float32, (5, 3, 3, 3))
    x = jf.placeholder("x", jf.float32, (7, 3, 6, 6))
    y = nn.conv(x, w)
    assert products(y) == [((5, 27), (27, 7 * 16))]
    assert products(jf.gradients(jf.sum(y * y), w))[-1] == ((5, 7 * 16), (7 * 16, 27))
    large = jf.placeholder("x", jf.float32, (7, 3, 18, 18))
    assert products(nn.conv(large, w)) == [((5, 27), (7, 27, 256))]


def test_a_convolution_bias_and_relu_are_one_kernel_that_copies_windows_in_runs() -> None:
    x = jf.placeholder("x", jf.float32, (1, 16, 20, 20))
    w, b = jf.variable("w", np.ones((16, 16, 3, 3), np.float32)), jf.variable("b", np.ones(16, np.float32))
    session = jf.Session(jf.relu(nn.conv(x, w, b, padding=1)))
    kernels = [head.split("(")[0] for head in session.dump("loops").split("kernel ")[1:]]
    assert [k for k in kernels if k.startswith("k")] == ["k0_pad", "k1_relu"]
    text = session.dump("loops", kernel="k1_relu")
    assert "left factor read in place" in text
    loads = [line for line in text.splitlines() if "= pad_0[" in line]
    assert loads
    assert not any("%" in line or "//" in line for line in loads)


@pytest.mark.parametrize(
    ("image", "weights", "options"),
    [
        ((2, 5, 9, 33), (5, 1, 3, 3), {"padding": 1, "groups": 5}),  # whole vectors and a rest
        ((1, 3, 8, 45), (6, 1, 2, 3), {"stride": (1, 2), "groups": 3}),  # two rows each, every other place
        ((1, 2, 5, 40), (2, 1, 9, 9), {"padding": 4, "groups": 2}),  # more elements than are written out
        ((2, 7, 6, 20), (3, 7, 3, 3), {"padding": 1, "dilation": 2, "stride": 1}),  # few channels out of many
        ((1, 1, 1, 300), (1, 1, 1, 3), {}),
    ],
)
def test_windows_of_few_rows_are_read_where_they_are(image: Any, weights: Any, options: Any) -> None:
    named = jf.placeholder("x", jf.float32, image)
    free = jf.placeholder("y", jf.float32, ("n", image[1], "h", "w"))
    x, w = array(*image).astype(np.float32), array(*weights).astype(np.float32)
    ys = [jf.relu(nn.conv(t, w, **options) + 1.0) for t in (named, free)]
    session = jf.Session(ys)
    assert "taps; " in session.dump("loops")
    feeds = {named: x, free: x}
    got, same = session.run(ys, feeds)
    np.testing.assert_array_equal(got, same)
    expected = np.maximum(jf.interpret(nn.conv(jf.constant(x), w, **options), {}) + 1.0, 0.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    with jf.config.override(fuse=False):
        np.testing.assert_array_equal(jf.Session(ys).run(ys, feeds)[0], got)


def test_gpu_kernels_compute_windows_pools_and_attention() -> None:
    x, q = array(1, 4, 5, 7).astype(np.float32), array(2, 5, 4).astype(np.float32)
    w = array(6, 2, 3, 3).astype(np.float32)
    ys = [
        nn.conv(x, w, padding=1, stride=2, groups=2),
        nn.conv_transpose(x, array(4, 3, 3, 3).astype(np.float32), stride=2, padding=1),
        nn.max_pool(x, 3, stride=2, padding=1),
        nn.avg_pool(x, 2, padding=1, count_include_pad=False),
        nn.attention(q, q, q, causal=True),
    ]
    for y in ys:
        (got,), expected = run_gpu([y]), jf.interpret(y, {})
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_symbolic_channels_are_divided_by_groups_when_it_runs() -> None:
    x = jf.placeholder("x", jf.float64, ("n", "c", "h"))
    w = jf.placeholder("w", jf.float64, ("o", "i", "k"))
    ys = [nn.conv(x, w, groups=2), nn.group_norm(x, 2)]
    assert str(ys[0].shape) == "(n, o, h - k + 1)"
    session = jf.Session(ys)
    good = {x: array(2, 4, 9), w: array(6, 2, 3)}
    for got, expected in zip(session.run(ys, good), jf.interpret(ys, good), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    for bad in ({w: array(5, 2, 3)}, {x: array(2, 3, 9)}, {w: array(6, 2, 10)}):
        for run in (session.run, jf.interpret):
            with pytest.raises(jf.FeedError):
                run(ys, good | bad)


# ---- conv_transpose


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (3, 2), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)},
        {"groups": 2, "stride": 2},
        {"groups": 4, "dilation": 2},
    ],
)
def test_conv_transpose_is_the_transpose_of_conv(arguments: dict[str, Any]) -> None:
    """<conv(x), y> = <x, conv_transpose(y)> for the shapes that go together."""
    x, w = array(2, 4, 9, 8), array(8, 4 // arguments.get("groups", 1), 3, 2)
    there = nn.conv(x, w, **arguments)
    y = array(*there.shape)
    # What the last window does not reach is what `output_padding` puts back.
    back = nn.conv_transpose(y, w, **arguments)
    more = tuple(n - m for n, m in zip(x.shape[2:], back.shape[2:], strict=True))
    back = nn.conv_transpose(y, w, output_padding=more, **arguments)
    assert back.shape == x.shape
    left, right = jf.Session([there, back]).run([there, back], {})
    assert np.sum(left * y) == pytest.approx(np.sum(x * right), rel=1e-12)


def test_conv_transpose_with_symbolic_sizes() -> None:
    x = jf.placeholder("x", jf.float64, ("n", 2, "h", 3))
    w = array(2, 3, 3, 3)
    y = nn.conv_transpose(x, w, stride=2, padding=1, output_padding=1)
    assert str(y.shape) == "(n, 3, h*2, 6)"
    session = jf.Session(y)
    for n, height in ((2, 4), (1, 1), (0, 2)):
        image = array(n, 2, height, 3)
        expected = jf.interpret(nn.conv_transpose(image, w, stride=2, padding=1, output_padding=1), {})
        np.testing.assert_allclose(session.run(y, {x: image}), expected, rtol=1e-12)


# ---- pooling


def test_windows_do_not_overlap_by_default() -> None:
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    assert jf.interpret(nn.max_pool(x, 2), {}).tolist() == [[[[5, 7], [13, 15]]]]
    assert jf.interpret(nn.avg_pool(x, (2, 4)), {}).tolist() == [[[[3.5], [11.5]]]]


def test_padding_is_never_the_greatest_element() -> None:
    x = -np.ones((1, 1, 3))
    assert jf.interpret(nn.max_pool(x, 2, stride=1, padding=1), {}).tolist() == [[[-1, -1, -1, -1]]]
    small = np.full((1, 1, 3), -128, np.int8)
    assert jf.interpret(nn.max_pool(small, 3, padding=1), {}).tolist() == [[[-128]]]


def test_the_derivative_is_shared_among_equal_greatest_elements() -> None:
    x = jf.constant([[[1.0, 3.0, 3.0, 2.0]]])
    y = nn.max_pool(x, 3, stride=1)
    assert jf.interpret(jf.gradients(jf.sum(y), x), {}).tolist() == [[[0, 1, 1, 0]]]


def test_gradients_of_a_convolution_along_three_symbolic_axes() -> None:
    # The sizes of what lies in between are formulas of many terms, and loops over windows have many parts.
    x = jf.placeholder("x", jf.float64, (1, 2, "a", "b", "c"))
    w = jf.placeholder("w", jf.float64, (2, 2, "p", "q", "r"))
    y = jf.sum(nn.conv(x, w) ** 2)
    slopes = jf.gradients(y, [x, w])
    feeds = {x: array(1, 2, 4, 3, 5), w: array(2, 2, 2, 3, 1)}
    with jf.Session([y, *slopes]) as session:
        _, dx, dw = session.run([y, *slopes], feeds)
        for t, slope in ((x, dx), (w, dw)):
            step = np.zeros(feeds[t].shape)
            step[(0,) * step.ndim] = 1e-4
            higher, lower = (session.run(y, {**feeds, t: feeds[t] + s}) for s in (step, -step))
            np.testing.assert_allclose(slope[(0,) * step.ndim], (higher - lower) / 2e-4, rtol=1e-6)


def test_pools_with_symbolic_sizes() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 3, "h", "w"))
    ys = [
        nn.max_pool(x, 3, stride=2, padding=1),
        nn.avg_pool(x, 2),
        nn.avg_pool(x, 3, padding=1, count_include_pad=False),
    ]
    session = jf.Session(ys)
    for shape in ((2, 3, 7, 6), (1, 3, 2, 2)):
        image = array(*shape).astype(np.float32)
        for got, expected in zip(session.run(ys, {x: image}), jf.interpret(ys, {x: image}), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    for run in (session.run, jf.interpret):
        with pytest.raises(jf.FeedError, match="a window of 2 does not fit axis 2, padded to h"):
            run(ys, {x: np.zeros((1, 3, 1, 4), np.float32)})


# ---- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x, w: nn.conv(x, w, stride=0),
            jf.GraphError,
            "stride must be an int of at least 1, or 2 of them",
        ),
        (lambda x, w: nn.conv(x, w, stride=(1, 1, 1)), jf.GraphError, r"or 2 of them, got \(1, 1, 1\)"),
        (lambda x, w: nn.conv(x, w, dilation=1.5), jf.GraphError, "conv: dilation must be an int"),
        (lambda x, w: nn.conv(x, w, padding="full"), jf.GraphError, "'same', 'valid', ints or pairs, got 'full'"),
        (lambda x, w: nn.conv(x, w, padding=-1), jf.GraphError, "padding must be an int of at least 0"),
        (lambda x, w: nn.conv(x, w, padding=((1, 1),)), jf.GraphError, "a pair for each of 2 axes"),
        (lambda x, w: nn.conv(x, w, groups=0), jf.GraphError, "groups must be an int of at least 1"),
        (lambda x, w: nn.conv(x[0], w), jf.ShapeError, "both have as many axes"),
        (lambda x, w: nn.conv(x, w[:, :2]), jf.ShapeError, "channels of w, 1 groups, and of x: 2 and 3 differ"),
        (
            lambda x, w: nn.conv(x[..., :2], w),
            jf.ShapeError,
            "over 3 elements does not fit axis 3, padded to 2",
        ),
        (lambda x, w: nn.conv_transpose(x, w, padding="same"), jf.GraphError, "padding must be ints or pairs"),
        (lambda x, w: nn.conv_transpose(x, w, output_padding=1), jf.ShapeError, "less than the stride 1"),
        (lambda x, w: nn.max_pool(x, (2, 2, 2)), jf.GraphError, "max_pool: window must be an int of at least 1"),
        (lambda x, w: nn.max_pool(x, 2, padding=2), jf.ShapeError, "padding 2 and 2 must be less than the window, 2"),
        (lambda x, w: nn.max_pool(x, 2, padding="same"), jf.ShapeError, "got 'same'"),
        (lambda x, w: nn.max_pool(x[0, 0], 2), jf.ShapeError, "a batch, channels and an axis to slide along"),
        (lambda x, w: nn.avg_pool(x, 9), jf.ShapeError, "a window of 9 does not fit axis 2, padded to 5"),
    ],
)
def test_errors_are_in_the_users_terms(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call(jf.zeros((1, 3, 5, 5)), jf.zeros((3, 3, 3, 3)))
    assert "test_nn.py" in str(caught.value)


# ---- activations and logsumexp


def test_one_sided_activations_keep_their_relative_precision() -> None:
    """Near 0 and far below it a plain formula with 1 + exp(x) would lose everything."""
    x = np.array([-80.0, -30.0, -1e-9, 1e-9])
    cases = [
        (nn.elu(x), [-1.0, -1.0, -1e-9, 1e-9]),
        (nn.softplus(x), [np.exp(-80.0), np.exp(-30.0), np.log(2) - 5e-10, np.log(2) + 5e-10]),
        (nn.log_sigmoid(-x), [-np.exp(-80.0), -np.exp(-30.0), -np.log(2) + 5e-10, -np.log(2) - 5e-10]),
        (nn.mish(x), [-80 * np.exp(-80.0), -30 * np.exp(-30.0), -0.6e-9, 0.6e-9]),
    ]
    for (y, expected), got in zip(cases, jf.Session(ys := [c[0] for c in cases]).run(ys, {}), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, err_msg=y.node.op.name)


def test_nothing_overflows_and_nan_stays() -> None:
    x = np.array([-np.inf, -800.0, 800.0, np.inf, np.nan])
    functions = {
        nn.softplus: [0, 0, 800, np.inf, np.nan],
        nn.log_sigmoid: [-np.inf, -800, 0, 0, np.nan],
        nn.elu: [-1, -1, 800, np.inf, np.nan],
        nn.relu6: [0, 0, 6, 6, np.nan],
        nn.hard_sigmoid: [0, 0, 1, 1, np.nan],
    }
    ys = [f(x) for f in functions]
    for got, expected in zip(jf.Session(ys).run(ys, {}), functions.values(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-15, atol=1e-300)
    assert jf.interpret(nn.mish(np.array([-800.0, 800.0])), {}).tolist() == [0, 800]


def test_logsumexp_of_large_numbers_is_their_greatest() -> None:
    x = np.array([[1000.0, 1000.0], [-1000.0, -1000.0], [-np.inf, 3.0]])
    y = jf.logsumexp(x, axis=1, keepdims=True)
    expected = [[1000 + np.log(2)], [-1000 + np.log(2)], [3.0]]
    np.testing.assert_allclose(jf.Session(y).run(y, {}), expected, rtol=1e-15)
    assert jf.interpret(jf.logsumexp(np.zeros((2, 0)), axis=1), {}).tolist() == [-np.inf, -np.inf]
    assert jf.interpret(jf.logsumexp(np.zeros((3, 4))), {}) == pytest.approx(np.log(12), rel=1e-15)


# ---- attention


def test_a_query_that_sees_no_key_gives_zeros_and_no_gradient() -> None:
    q, k, v = (jf.constant(array(2, 3, 4)) for _ in range(3))
    hidden = np.ones((3, 3), np.bool_)
    hidden[1] = False
    ys = [nn.attention(q, k, v, mask=m) for m in (hidden, np.where(hidden, 0.0, -np.inf))]
    grads = jf.gradients(jf.sum(ys[0]), [q, k, v])
    *results, dq, dk, dv = jf.Session([*ys, *grads]).run([*ys, *grads], {})
    for y in results:
        np.testing.assert_array_equal(y[:, 1], 0)
        assert (y[:, [0, 2]] != 0).all()
    assert all(np.isfinite(g).all() for g in (dq, dk, dv))
    np.testing.assert_array_equal(dq[:, 1], 0)


def test_causal_attention_does_not_look_ahead() -> None:
    q, k, v = array(5, 4), array(7, 4), array(7, 2)
    whole = jf.interpret(nn.attention(q, k, v, causal=True), {})
    for n in range(1, 6):
        part = jf.interpret(nn.attention(q[n - 1 : n], k[:n], v[:n]), {})
        np.testing.assert_allclose(whole[n - 1], part[0], rtol=1e-12)


def test_attention_of_large_scores_does_not_overflow() -> None:
    q = np.array([[1e4, 0.0], [-1e4, 0.0]])
    y = nn.attention(q, q, np.array([[1.0], [2.0]]), scale=1.0)
    assert jf.Session(y).run(y, {}).tolist() == [[1.0], [2.0]]


def test_attention_with_symbolic_lengths() -> None:
    q = jf.placeholder("q", jf.float32, ("b", 2, "n", 8))
    k = jf.placeholder("k", jf.float32, ("b", 2, "m", 8))
    mask = jf.placeholder("mask", jf.bool_, ("b", 1, 1, "m"))
    ys = [nn.attention(q, k, k, mask=mask), nn.attention(q, k, k, causal=True)]
    session = jf.Session(ys)
    for b, n, m in ((2, 3, 5), (1, 1, 1), (1, 9, 4), (2, 0, 3), (2, 3, 0)):
        feeds = {q: array(b, 2, n, 8).astype(np.float32), k: array(b, 2, m, 8).astype(np.float32)}
        feeds[mask] = RNG.integers(0, 2, (b, 1, 1, m)).astype(np.bool_)
        got, expected = session.run(ys, feeds), jf.interpret(ys, feeds)
        for x, y in zip(got, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)
            assert np.isfinite(x).all()


# ---- normalization


def test_normalized_groups_have_mean_zero_and_variance_one() -> None:
    x = array(3, 6, 5, 4) * 7 + 3
    scale, bias = array(6), array(6)
    ys = [nn.group_norm(x, 2, eps=0.0), nn.instance_norm(x, eps=0.0), nn.rms_norm(x, axis=(1, 2, 3), eps=0.0)]
    ys += [nn.group_norm(x, 2, scale, bias), nn.group_norm(x, 2), nn.group_norm(x, 2, bias=bias)]
    group, instance, rms, affine, plain, shifted = jf.Session(ys).run(ys, {})
    for y, axes in ((group.reshape(3, 2, 3, 5, 4), (2, 3, 4)), (instance, (2, 3))):
        np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-12)
        np.testing.assert_allclose(y.var(axis=axes), 1, rtol=1e-12)
    np.testing.assert_allclose((rms**2).mean(axis=(1, 2, 3)), 1, rtol=1e-12)
    np.testing.assert_allclose(affine, plain * scale[:, None, None] + bias[:, None, None], rtol=1e-12)
    np.testing.assert_allclose(shifted, plain + bias[:, None, None], rtol=1e-12)


def test_batch_norm_of_the_batch_itself_is_normalized_and_its_gradient_goes_through_the_statistics() -> None:
    x = jf.constant(array(4, 3, 5) * 2 + 1)
    y = nn.batch_norm(x, *nn.batch_statistics(x), eps=0.0)
    value, slope = jf.interpret([y, jf.gradients(jf.sum(y * y), x)], {})
    np.testing.assert_allclose(value.mean(axis=(0, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(value.var(axis=(0, 2)), 1, rtol=1e-12)
    # The sum of squares of what has variance 1 is constant.
    np.testing.assert_allclose(slope, 0, atol=1e-12)


def test_norms_with_symbolic_sizes() -> None:
    x = jf.placeholder("x", jf.float64, ("n", 4, "h"))
    ys = [nn.group_norm(x, 2), nn.instance_norm(x), nn.rms_norm(x), nn.batch_norm(x, *nn.batch_statistics(x))]
    session = jf.Session(ys)
    for shape in ((2, 4, 3), (1, 4, 1)):
        value = array(*shape)
        for got, expected in zip(session.run(ys, {x: value}), jf.interpret(ys, {x: value}), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


# ---- losses, tables, dropout


def test_losses_and_their_reductions() -> None:
    x, y = np.array([0.0, 2.0, -3.0]), np.array([0.5, 0.0, 0.0])
    squares, parts = np.array([0.25, 4, 9]), np.array([0.125, 1.5, 2.5])
    for loss, each in ((nn.mse, squares), (nn.huber, parts)):
        got = jf.interpret([loss(x, y, reduction=r) for r in ("none", "sum", "mean")], {})
        np.testing.assert_allclose(got[0], each, rtol=1e-15)
        assert got[1:] == [pytest.approx(each.sum()), pytest.approx(each.mean())]
    assert jf.interpret(nn.huber(x, y, delta=3.0, reduction="none"), {}).tolist() == [0.125, 2, 4.5]
    half = np.full(4, 300, np.float16)
    assert jf.interpret(nn.mse(half, half - 100), {}) == 10000


def test_cross_entropy_is_the_logarithm_of_the_softmax() -> None:
    logits, labels = array(4, 3, 5), RNG.integers(0, 3, (4, 5))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, labels[:, None], 1)[:, 0])
    got, soft = jf.interpret(
        [nn.cross_entropy(logits, labels, axis=1), nn.cross_entropy(logits, p, axis=1, reduction="none")], {}
    )
    assert got == pytest.approx(expected.mean(), rel=1e-12)
    np.testing.assert_allclose(soft, -(p * np.log(p)).sum(axis=1), rtol=1e-12)


def test_the_gradient_of_cross_entropy_is_the_softmax_less_the_label() -> None:
    x = jf.constant(array(2, 3))
    slope = jf.gradients(nn.cross_entropy(x, np.array([2, 0]), reduction="sum"), x)
    got, p = jf.interpret([slope, jf.softmax(x)], {})
    np.testing.assert_allclose(got, p - np.eye(3)[[2, 0]], rtol=1e-12, atol=1e-15)


def test_binary_cross_entropy_keeps_what_nearly_right_answers_cost() -> None:
    x = np.array([40.0, -40.0, 40.0, -40.0, 0.0])
    t = np.array([1.0, 0.0, 0.0, 1.0, 0.5])
    expected = [np.exp(-40.0), np.exp(-40.0), 40.0, 40.0, np.log(2)]
    y = nn.binary_cross_entropy_with_logits(x, t, reduction="none")
    np.testing.assert_allclose(jf.Session(y).run(y, {}), expected, rtol=1e-12)


def test_one_hot_in_any_place_and_dtype() -> None:
    i = np.array([[0, 2], [-1, 3]])
    last, first, flags, wide = jf.interpret(
        [
            nn.one_hot(i, 3),
            nn.one_hot(i, 3, axis=0, dtype=jf.int8),
            nn.one_hot(i, 3, dtype=jf.bool_),
            nn.one_hot(np.array([2**64 - 1, 1], np.uint64), 2),
        ],
        {},
    )
    expected = np.array([[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(last, expected)
    np.testing.assert_array_equal(first, np.moveaxis(expected, -1, 0))
    assert first.dtype == np.int8
    np.testing.assert_array_equal(flags, expected > 0)
    assert wide.tolist() == [[0, 0], [0, 1]]
    n = jf.placeholder("x", jf.int64, ("n",))
    assert nn.one_hot(n, n.shape[0]).shape == ("n", "n")


def test_embedding_adds_up_the_gradients_of_a_row() -> None:
    table = jf.constant(array(4, 2))
    y = nn.embedding(table, np.array([[1, 1], [3, -1]]))
    assert y.shape == (2, 2, 2)
    slope = jf.interpret(jf.gradients(jf.sum(y), table), {})
    np.testing.assert_array_equal(slope, [[0, 0], [2, 2], [0, 0], [2, 2]])


def test_dropout_drops_as_often_as_asked_and_keeps_the_mean() -> None:
    n = 100_000
    for dtype in (np.float32, np.float16):
        y = nn.dropout(np.ones(n, dtype), 0.25, jf.random.key(1))
        got = jf.Session(y).run(y, {})
        assert got.dtype == dtype
        assert set(got.tolist()) == {0, dtype(dtype(1) / dtype(0.75))}
        assert abs((got == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / n)
    x = jf.constant(np.ones(1000))
    z = nn.dropout(x, 0.5, jf.random.key(2))
    slope, value = jf.interpret([jf.gradients(jf.sum(z), x), z], {})
    np.testing.assert_array_equal(slope, value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: nn.attention(x, x[:, :2], x), jf.ShapeError, "features of q and k: 3 and 2 differ"),
        (lambda x: nn.attention(x, x, x, mask=[[1, 0]]), jf.DTypeError, "a mask is bool, or float64 as the queries"),
        (lambda x: nn.group_norm(x, 2), jf.ShapeError, "2 groups do not divide 3 channels"),
        (lambda x: nn.group_norm(x, 0), jf.GraphError, "groups must be an int of at least 1"),
        (lambda x: nn.batch_norm(x, x[0], x[0, :2]), jf.ShapeError, "var of shape .* for 3 channels: 2 and 3 differ"),
        (lambda x: nn.batch_statistics(x[0]), jf.ShapeError, "a batch and channels are needed"),
        (lambda x: nn.mse(x, x, reduction="max"), jf.GraphError, "must be 'mean', 'sum' or 'none', got 'max'"),
        (lambda x: nn.huber(x, x, delta=0.0), jf.GraphError, "delta must be positive, got 0"),
        (lambda x: nn.cross_entropy(x, [0]), jf.ShapeError, r"labels \(1,\): 1 and 2 differ"),
        (lambda x: nn.cross_entropy(x, x > 0), jf.DTypeError, "labels are integers, or probabilities"),
        (lambda x: nn.one_hot(x, 3), jf.DTypeError, "indices are integers, not float64"),
        (lambda x: nn.embedding(x[0], [0]), jf.ShapeError, "a table has two axes"),
        (lambda x: nn.dropout(x, 1.0, jf.random.key(0)), jf.GraphError, "from 0 to below 1, got 1.0"),
        (lambda x: nn.dropout(x, 0.5, 3), jf.DTypeError, "a key is a 0-d uint64 tensor"),
    ],
)
def test_more_errors_are_in_the_users_terms(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call(jf.zeros((2, 3)))
    assert "test_nn.py" in str(caught.value)
