"""F21 to F34, the part that is about what is left behind: after a refusal nothing was written and everything works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from tests.support.bits import same_bits

F32 = np.float32
X = np.arange(12, dtype=F32).reshape(3, 4)
I = np.array([2, 0])


class Model:
    """A session with a variable, an index that can be wrong and an output of each kind."""

    def __init__(self) -> None:
        self.x = jf.placeholder("x", jf.float32, ("n", 4))
        self.i = jf.placeholder("i", jf.int64, ("m",))
        self.w = jf.variable("w", np.array([1.5, -0.0, np.nan, 1e-42], F32))
        self.rows = (jf.take(self.x, self.i, axis=0) + self.w).named("rows")
        self.total = jf.sum(self.x * 2.0, axis=0).named("total")
        self.session = jf.Session([self.rows, self.total, self.w])


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    model = Model()
    yield model
    model.session.close()


def forged() -> list[Any]:
    """Return objects that claim to be X, at addresses that end the process when they are read."""
    interface = {"shape": (3, 4), "typestr": "<f4", "data": (8, False), "version": 3}

    class Interface:
        __array_interface__ = interface

    class Struct:
        __array_struct__ = 12345

    class Dlpack:
        def __dlpack__(self, **options: Any) -> Any:
            raise AssertionError("it was asked for its memory")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    class Cuda:
        __cuda_array_interface__ = interface

    return [Interface(), Struct(), Dlpack(), Cuda(), [Interface()]]


@pytest.mark.parametrize("k", range(5), ids=["interface", "struct", "dlpack", "cuda", "in a list"])
def test_f32_an_address_that_an_object_claims_is_never_believed(model: Model, k: int) -> None:
    value = forged()[k]
    calls: list[Callable[[], Any]] = [
        lambda: model.session.run(model.total, {model.x: value}),
        lambda: model.session.function([model.x], model.total)(value),
        lambda: model.session.function([model.x], model.total, native=False)(value),
        lambda: model.session.function([model.x], model.total)(X, out=value),
    ]
    for call in calls:
        with pytest.raises(jf.FeedTypeError, match=r"test_feeds\.py:"):
            call()
    assert model.session.run(model.total, {model.x: X}).tolist() == (X * 2).sum(0).tolist()


BAD: dict[str, tuple[Any, Any, type[Exception]]] = {
    "f21 another size": (X[:, :3].copy(), I, jf.FeedError),
    "f21 another rank": (X[0], I, jf.FeedError),
    "f23 another dtype": (X.astype(np.float64), I, jf.FeedError),
    "f23 another integer": (X, I.astype(np.uint64), jf.FeedError),
    "f30 text": ("text", I, jf.FeedTypeError),
    "f30 ragged": ([[1.0], [2.0, 3.0]], I, jf.FeedTypeError),
    "f43 an index": (X, np.array([0, 7]), jf.IndexRangeError),
}


@pytest.mark.parametrize("native", [True, False], ids=["compiled", "portable"])
@pytest.mark.parametrize("case", list(BAD))
def test_f21_f23_f30_f43_nothing_is_written_before_all_is_checked(model: Model, case: str, native: bool) -> None:
    x, i, error = BAD[case]
    f = model.session.function([model.x, model.i], [model.rows, model.total], native=native)
    outs = [np.full((2, 4), 7, F32), np.full(4, 7, F32)]
    before = [np.array(v, copy=True) for v in (x, i) if isinstance(v, np.ndarray)]
    with pytest.raises(error) as caught:
        f(x, i, out=outs)
    assert type(caught.value) is error
    assert "\n  at " in str(caught.value)
    assert str(caught.value).rpartition("\n  at ")[2].startswith(__file__)
    assert all((out == 7).all() for out in outs)
    after = [v for v in (x, i) if isinstance(v, np.ndarray)]
    assert all(map(same_bits, before, after))
    assert same_bits(model.session.run(model.w), model.w.node.attr("value").array)
    rows, total = f(X, I, out=outs)
    assert same_bits(rows, X[I] + model.w.node.attr("value").array)
    assert same_bits(total, (X * 2).sum(0))


@pytest.mark.parametrize("native", [True, False], ids=["compiled", "portable"])
def test_f29_an_output_on_another_or_itself_is_refused_before_any_write(model: Model, native: bool) -> None:
    f = model.session.function([model.x, model.i], [model.rows, model.total], native=native)
    memory = np.full(12, 7, F32)
    itself = np.lib.stride_tricks.as_strided(memory, (2, 4), (4, 4))
    for outs in ([memory[:8].reshape(2, 4), memory[6:10]], [itself, memory[8:]]):
        with pytest.raises(jf.FeedError, match=r"overlap|itself"):
            f(X, I, out=outs)
        assert (memory == 7).all()


def test_f31_what_array_raises_comes_through_and_the_state_is_clean(model: Model) -> None:
    class Mine(BaseException):
        pass

    class Raises:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise Mine

    for native in (True, False):
        f = model.session.function([model.x, model.i], model.rows, native=native)
        out = np.full((2, 4), 7, F32)
        for arguments in ((Raises(), I), (X, Raises())):
            with pytest.raises(Mine):
                f(*arguments, out=out)
        assert (out == 7).all()
        assert same_bits(f(X, I), X[I] + model.w.node.attr("value").array)
    state, slot = model.session._loaded[0].state, model.session._arenas.slot
    assert (state.native_running, slot.native_busy, slot.python_busy) == (0, 0, 0)
