"""Random numbers: the published vectors of Philox, the same bits everywhere, and that they are as likely as stated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from tests.support.gpu_run import run_gpu

random = jf.random
KEY = random.key(2024)
COUNT = 100_000

#: Counter, key and result, from the file kat_vectors of Random123 1.14 (philox4x32, 10 rounds).
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(column: int) -> np.ndarray:
    return np.array([[int(word, 16) for word in row[column].split()] for row in KNOWN], np.uint32)


def run(*tensors: jf.Tensor) -> list[np.ndarray]:
    return jf.Session(list(tensors)).run(list(tensors), {})


@pytest.mark.parametrize("cpu", ["", "x86-64-v2", "x86-64-v3"])
def test_philox_gives_the_published_vectors(cpu: str) -> None:
    y = random.philox(words(0), words(1))
    np.testing.assert_array_equal(jf.interpret(y, {}), words(2))
    with jf.config.override(target_cpu=cpu) if cpu else jf.config.override():
        np.testing.assert_array_equal(run(y)[0], words(2))


def test_bits_are_philox_of_the_position() -> None:
    seed = 0x9E3779B97F4A7C15
    counters = np.zeros((5, 4), np.uint32)
    counters[:, 0] = np.arange(5)
    expected = jf.interpret(random.philox(counters, np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)), {})
    key = random.key(seed)
    np.testing.assert_array_equal(run(random.bits(key, (5,)))[0], expected[:, 0])
    wide = run(random.bits(key, (5,), dtype=jf.uint64))[0]
    np.testing.assert_array_equal(wide, expected[:, 0] + (expected[:, 1].astype(np.uint64) << np.uint64(32)))
    np.testing.assert_array_equal(run(random.bits(key, (5,), dtype=jf.uint8))[0], expected[:, 0].astype(np.uint8))


def exact_draws(key: Any, shape: Any) -> list[jf.Tensor]:
    return [
        *(random.bits(key, shape, dtype=d) for d in (jf.uint8, jf.uint16, jf.uint32, jf.uint64)),
        *(random.uniform(key, shape, dtype=d) for d in (jf.float16, jf.bfloat16, jf.float32, jf.float64)),
        random.uniform(key, shape, low=-3.0, high=5.0, dtype=jf.float32),
        random.bernoulli(key, 0.3, shape),
        random.randint(key, -7, 12, shape, dtype=jf.int8),
        random.randint(key, 0, 10**15, shape),
        random.fold_in(key, 7),
        random.split(key, 3),
    ]


def test_the_same_bits_interpreted_and_compiled() -> None:
    draws = exact_draws(KEY, (7, 13))
    for k, (got, expected) in enumerate(zip(run(*draws), jf.interpret(draws, {}), strict=True)):
        assert got.dtype == expected.dtype, k
        assert got.tobytes() == expected.tobytes(), k


def test_gpu_kernels_give_the_same_bits() -> None:
    draws = [random.bits(KEY, (40,)), random.uniform(KEY, (3, 9)), random.randint(KEY, -7, 12, (20,), dtype=jf.int8)]
    for got, expected in zip(run_gpu(draws, final=True), jf.interpret(draws, {}), strict=True):
        assert got.tobytes() == expected.tobytes()


def test_what_takes_logarithms_is_as_exact_as_those() -> None:
    draws = [f(KEY, (1000,), dtype=d) for f in (random.normal, random.exponential) for d in (jf.float32, jf.float64)]
    for got, expected in zip(run(*draws), jf.interpret(draws, {}), strict=True):
        eps = float(np.finfo(got.dtype).eps)
        np.testing.assert_allclose(got, expected, rtol=8 * eps, atol=8 * eps)


def test_a_result_depends_on_key_and_position_alone() -> None:
    flat, square, longer, again = run(*(random.bits(KEY, s) for s in ((6,), (2, 3), (50,), (6,))))
    np.testing.assert_array_equal(square.reshape(-1), flat)
    np.testing.assert_array_equal(longer[:6], flat)
    np.testing.assert_array_equal(again, flat)


def test_keys_and_shapes_may_be_known_at_run_time_only() -> None:
    key = jf.placeholder("key", jf.uint64, ())
    x = jf.placeholder("x", jf.float32, ("n", 3))
    draws = exact_draws(key, x.shape)
    session = jf.Session([x + 0.0, *draws])
    for n, seed in ((4, 5), (1, 2**64 - 1), (0, 5)):
        got = session.run([x + 0.0, *draws], {x: np.zeros((n, 3), np.float32), key: np.uint64(seed)})
        expected = jf.interpret(exact_draws(random.key(seed), (n, 3)), {})
        for a, b in zip(got[1:], expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_seeds_are_taken_modulo_two_to_the_64() -> None:
    values = jf.interpret([random.key(s) for s in (0, -1, 2**64 + 3, np.int32(5))], {})
    assert [int(v) for v in values] == [0, 2**64 - 1, 3, 5]
    assert random.key(jf.placeholder(None, jf.int32, ())).dtype == jf.uint64


def test_new_keys_share_nothing_with_the_old_one_and_each_other() -> None:
    child, other = random.split(KEY)[0], random.split(KEY)[1]
    step = random.fold_in(KEY, jf.constant(np.arange(100)))
    drawn = [random.bits(k, (100,), dtype=jf.uint64) for k in (KEY, child, other)]
    found = run(*drawn, random.split(KEY, 100), step, random.fold_in(child, 0))
    everything = np.concatenate([x.reshape(-1) for x in found])
    assert len(np.unique(everything)) == len(everything)
    streams = [(x >> np.uint64(11)).astype(np.float64) * 2**-53 for x in found[:5]]
    correlations = np.corrcoef(streams)[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 4 / math.sqrt(100)


# ---- how likely


def kolmogorov(sample: np.ndarray, cdf: np.ndarray) -> float:
    """Return sqrt(n) times the greatest distance of the empirical distribution of `sample` (sorted) from `cdf`.

    It is over 1.95 once in a thousand times.
    """
    n = len(sample)
    above, below = np.arange(1, n + 1) / n - cdf, cdf - np.arange(n) / n
    return math.sqrt(n) * float(max(above.max(), below.max()))


def chi_square(counts: np.ndarray, expected: Any) -> float:
    """Return the chi-square statistic in standard deviations from its mean (normal for many degrees of freedom)."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(counts) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def test_uniform_numbers_are_multiples_of_a_power_of_two_each_as_likely() -> None:
    digits = {jf.float16: 11, jf.bfloat16: 8, jf.float32: 24, jf.float64: 53}
    for (dtype, d), x in zip(
        digits.items(), run(*(random.uniform(KEY, (COUNT,), dtype=t) for t in digits)), strict=True
    ):
        wide = x.astype(np.float64)
        assert dtype == x.dtype
        assert wide.min() >= 0
        assert wide.max() < 1
        np.testing.assert_array_equal(wide * 2.0**d % 1, 0)
        if d <= 11:
            assert abs(chi_square(np.bincount((wide * 2**d).astype(int), minlength=2**d), COUNT / 2**d)) < 4, dtype
        else:
            assert kolmogorov(np.sort(wide), np.sort(wide)) < 1.95, dtype
            # The lowest bit is as random as the highest.
            assert abs(((wide * 2.0**d) % 2).mean() - 0.5) < 4 * 0.5 / math.sqrt(COUNT)


def test_uniform_numbers_stay_below_their_upper_bound() -> None:
    high = float(np.nextafter(np.float32(1), np.float32(2)))
    draws = [
        random.uniform(KEY, (1000,), low=1.0, high=high, dtype=jf.float32),
        random.uniform(KEY, (1000,), low=-2.0, high=6.0),
        random.uniform(KEY, (1000,), low=1.0, high=1.01, dtype=jf.float16),
    ]
    close, wide, half = run(*draws)
    assert np.unique(close).tolist() == [1.0]
    assert wide.min() < -1.9
    assert 5.9 < wide.max() < 6
    assert sorted(set(half.tolist())) == [1 + k * 2**-10 for k in range(10)]  # 1.01 is 1 + 10 * 2**-10


def test_normal_numbers_are_normal() -> None:
    for x in run(*(random.normal(KEY, (COUNT,), dtype=d) for d in (jf.float32, jf.float64))):
        z = np.sort(x.astype(np.float64))
        assert kolmogorov(z, np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])) < 1.95
        # The first four moments: 0, 1, 0, 3, within four of their standard errors.
        for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs((z**power).mean() - moment) < 4 * math.sqrt(variance / COUNT), power
        assert 4 < np.abs(z).max() < 6
        assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 4 / math.sqrt(COUNT)


def test_halves_of_normal_numbers_are_those_of_float32_rounded_once() -> None:
    for dtype in (jf.float16, jf.bfloat16):
        half, single = run(random.normal(KEY, (500,), dtype=dtype), random.normal(KEY, (500,), dtype=jf.float32))
        np.testing.assert_array_equal(half, single.astype(half.dtype))


def test_exponential_numbers_are_exponential() -> None:
    for x in run(*(random.exponential(KEY, (COUNT,), dtype=d) for d in (jf.float32, jf.float64))):
        z = np.sort(x.astype(np.float64))
        assert z[0] > 0
        assert kolmogorov(z, -np.expm1(-z)) < 1.95


def test_bernoulli_numbers_are_true_as_often_as_asked() -> None:
    p = np.array([[-1.0], [0.0], [0.01], [0.5], [0.99], [1.0], [np.nan]])
    shares = run(random.bernoulli(KEY, p, (7, COUNT)))[0].mean(axis=1)
    assert shares[[0, 1, 5, 6]].tolist() == [0, 0, 1, 0]
    for share, chance in zip(shares[2:5], (0.01, 0.5, 0.99), strict=True):
        assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / COUNT)
    assert run(random.bernoulli(KEY, jf.constant(np.full(3, 0.5, np.float32))))[0].shape == (3,)


def test_integers_are_the_upper_part_of_a_product() -> None:
    """Compare with Python's integers: ``bits * n // 2**64`` of 64 bits, or 2**128 of 128 for many values."""
    counts = [1, 2, 3, 6, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 10**15 + 7, 2**62, 2**63 + 1, 2**64 - 1, 2**64]
    draws = [random.randint(KEY, 0, n, (40,), dtype=jf.uint64) for n in counts]
    low, high = 2024 & 0xFFFFFFFF, 2024 >> 32
    counters = np.zeros((40, 4), np.uint32)
    counters[:, 0] = np.arange(40)
    halves = jf.interpret(random.philox(counters, np.array([low, high], np.uint32)), {}).astype(object)
    first, second = (halves[:, k] + (halves[:, k + 1] << 32) for k in (0, 2))
    for n, got in zip(counts, run(*draws), strict=True):
        wide = n > 2**32 and n < 2**64
        expected = [(a << 64 | b) * n >> 128 if wide else a * n >> 64 for a, b in zip(first, second, strict=True)]
        assert got.tolist() == expected, n


def test_integers_are_each_as_likely() -> None:
    die, signed, wide = run(
        random.randint(KEY, 1, 7, (COUNT,)),
        random.randint(KEY, -128, 128, (COUNT,), dtype=jf.int8),
        random.randint(KEY, -(10**15), 10**15, (COUNT,)),
    )
    assert abs(chi_square(np.bincount(die, minlength=7)[1:], COUNT / 6)) < 4
    assert abs(chi_square(np.bincount(signed.astype(int) + 128, minlength=256), COUNT / 256)) < 4
    assert kolmogorov(np.sort(wide), (np.sort(wide) + 10**15) / (2 * 10**15)) < 1.95
    assert abs((wide % 2).mean() - 0.5) < 4 * 0.5 / math.sqrt(COUNT)


def test_integers_may_fill_their_dtype() -> None:
    low, high = -(2**63), 2**63
    x = run(random.randint(KEY, low, high, (1000,)))[0]
    assert x.dtype == np.int64
    assert x.min() < -(2**62)
    assert x.max() > 2**62
    assert run(random.randint(KEY, 5, 6, (3,)))[0].tolist() == [5, 5, 5]


def test_categories_are_drawn_in_proportion_to_their_weights() -> None:
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.2, 0.0], [0.25, 0.25, 0.25, 0.25]])
    with np.errstate(divide="ignore"):
        logits = np.log(weights) + 100
    for dtype in (jf.float32, jf.float64):
        x = run(random.categorical(KEY, jf.astype(logits, dtype), shape=(COUNT,)))[0]
        assert x.dtype == np.int64
        assert x.shape == (COUNT, 3)
        for k, own in enumerate(weights):
            counts = np.bincount(x[:, k], minlength=4)
            assert not counts[own == 0].any()
            assert abs(chi_square(counts[own > 0], COUNT * own[own > 0])) < 4
    first = run(random.categorical(KEY, logits.T, axis=0))[0]
    assert first.shape == (3,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: random.key(1.5), jf.DTypeError, "a seed is an int or a 0-d tensor of integers"),
        (lambda: random.key(True), jf.DTypeError, "a seed is an int"),
        (lambda: random.bits(3, (2,)), jf.DTypeError, r"bits: a key is a 0-d uint64 tensor, as key\(seed\) gives"),
        (lambda: random.bits(random.split(KEY), (2,)), jf.DTypeError, "a key is a 0-d uint64 tensor"),
        (lambda: random.bits(KEY, (2,), dtype=jf.int32), jf.DTypeError, "unsigned integers, not int32"),
        (lambda: random.bits(KEY, (-2,)), jf.ShapeError, "cannot be negative"),
        (lambda: random.uniform(KEY, (2,), dtype=jf.int32), jf.DTypeError, "uniform gives floats, not int32"),
        (lambda: random.uniform(KEY, low=1.0), jf.GraphError, "low must be less than high"),
        (lambda: random.uniform(KEY, high=math.inf), jf.GraphError, "low must be less than high"),
        (lambda: random.normal(KEY, dtype=jf.int8), jf.DTypeError, "normal gives floats, not int8"),
        (lambda: random.bernoulli(KEY, jf.constant([1])), jf.DTypeError, "probabilities are floats, not int64"),
        (lambda: random.bernoulli(KEY, jf.constant([0.5, 0.5]), (3,)), jf.ShapeError, "does not broadcast"),
        (lambda: random.randint(KEY, 3, 3), jf.GraphError, "randint: low must be less than high, got 3 and 3"),
        (
            lambda: random.randint(KEY, 0, 257, dtype=jf.uint8),
            jf.OutOfBoundsError,
            "no integers from 0 to 256",
        ),
        (lambda: random.randint(KEY, 0, 2.5), jf.DTypeError, "low and high must be ints"),
        (lambda: random.randint(KEY, 0, 2, dtype=jf.float32), jf.DTypeError, "randint gives integers, not float32"),
        (lambda: random.categorical(KEY, jf.constant([1])), jf.DTypeError, "logits are floats, not int64"),
        (lambda: random.categorical(KEY, jf.zeros((2,)), axis=1), jf.ShapeError, "axis 1 is out of range"),
        (
            lambda: random.philox(np.zeros(4, np.uint32), np.zeros(3, np.uint32)),
            jf.DTypeError,
            "a key is uint32",
        ),
        (lambda: random.fold_in(KEY, jf.constant(1.0)), jf.DTypeError, "data are integers, got float64"),
    ],
)
def test_errors_are_in_the_users_terms(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "test_random.py" in str(caught.value)


# ---- orders


def test_a_permutation_has_every_element_once_and_each_order_is_as_likely() -> None:
    keys = [random.fold_in(KEY, k) for k in range(600)]
    orders = np.array(run(*(random.permutation(k, 3) for k in keys)))
    assert orders.dtype == np.int64
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(3), (600, 1)))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert abs(chi_square(counts, 100)) < 4


def test_a_permutation_of_a_tensor_moves_whole_parts() -> None:
    x = np.arange(12).reshape(3, 4)
    whole, rows, columns, empty, one = run(
        random.permutation(KEY, 100),
        random.permutation(KEY, x),
        random.permutation(KEY, x, axis=-1),
        random.permutation(KEY, 0),
        random.permutation(KEY, np.array([7.0])),
    )
    assert sorted(whole.tolist()) == list(range(100))
    assert whole.tolist() != list(range(100))
    assert sorted(rows.tolist()) == x.tolist()
    assert sorted(columns.T.tolist()) == x.T.tolist()
    assert empty.tolist() == []
    assert one.tolist() == [7.0]
    n = jf.placeholder("x", jf.float32, ("n",))
    y = random.permutation(KEY, n.shape[0])
    np.testing.assert_array_equal(jf.Session([y, n]).run([y, n], {n: np.zeros(100, np.float32)})[0], whole)


def test_choices_are_drawn_with_the_probabilities_given() -> None:
    values, p = np.array([10.0, 20.0, 30.0]), np.array([0.2, 0.0, 0.6])
    numbers, picked, weighted, distinct, everything = run(
        random.choice(KEY, 4, (COUNT,)),
        random.choice(KEY, values, (2, 5)),
        random.choice(KEY, values, (COUNT,), p=p),
        random.choice(KEY, 50, (5, 6), replace=False),
        random.choice(KEY, values, (3,), replace=False),
    )
    assert abs(chi_square(np.bincount(numbers, minlength=4), COUNT / 4)) < 4
    assert picked.shape == (2, 5)
    assert set(picked.reshape(-1).tolist()) <= {10, 20, 30}
    counts = np.array([(weighted == v).sum() for v in values])
    assert counts[1] == 0
    assert abs(chi_square(counts[[0, 2]], COUNT * np.array([0.25, 0.75]))) < 4
    assert distinct.shape == (5, 6)
    assert len(np.unique(distinct)) == 30
    assert sorted(everything.tolist()) == values.tolist()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: random.permutation(KEY, -1), jf.ShapeError, "cannot be negative"),
        (lambda: random.permutation(KEY, jf.zeros((2,)), axis=1), jf.ShapeError, "axis 1 is out of range"),
        (lambda: random.choice(KEY, 0), jf.ShapeError, "a positive int or a vector of known size is needed, got 0"),
        (lambda: random.choice(KEY, jf.zeros((2, 2))), jf.ShapeError, r"is needed, got \(2, 2\)"),
        (lambda: random.choice(KEY, 3, (2, 2), replace=False), jf.ShapeError, "4 elements of 3 cannot be chosen"),
        (lambda: random.choice(KEY, 3, (2,), replace=False, p=[0.5, 0.5, 0]), jf.GraphError, "with replacement"),
        (
            lambda: random.choice(KEY, 3, (2,), p=[0.5, 0.5]),
            jf.ShapeError,
            "3 probabilities are needed",
        ),
        (lambda: random.choice(KEY, 3, (2,), p=[1, 1, 1]), jf.DTypeError, "probabilities are floats, not int64"),
    ],
)
def test_errors_of_orders_are_in_the_users_terms(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
