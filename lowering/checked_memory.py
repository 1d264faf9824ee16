"""Memory of the loop interpreter that notices what compiled code would not: bounds, undefined contents, races.

Races: a loop whose iterations promise to be independent, or the threads of a GPU block, is a *level* of the
:class:`Clock`. Each iteration (each thread, after each barrier again) has its own stamp, and memory made outside the
level remembers the stamps of its last readers and writers there. An access that meets another stamp of the same
level, one of the two being a write, is a race.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jitflow.errors import CompilerBug
from lowering.exact import Array, fmax, fmin, np_dtype

_READ, _WRITE, _ATOMIC = "read", "written", "updated"


class Level:
    """One running loop of independent iterations: stamps below `base` belong to the past, `now` is running."""

    __slots__ = ("base", "now")

    def __init__(self, base: int, now: int) -> None:
        self.base, self.now = base, now


class Clock:
    """The levels that are running, and the next unused stamp."""

    __slots__ = ("levels", "reverse", "stamp")

    def __init__(self, reverse: bool) -> None:
        self.levels: list[Level] = []
        self.reverse = reverse
        self.stamp = 0

    def tick(self, count: int = 1) -> int:
        """Return the first of `count` new stamps."""
        first, self.stamp = self.stamp, self.stamp + count
        return first

    def iterations(self, extent: int) -> Iterator[int]:
        """Yield the iterations of an independent loop, each with its own stamp."""
        levels = self.levels
        level = Level(self.stamp, 0)
        levels.append(level)
        for i in reversed(range(extent)) if self.reverse else range(extent):
            level.now = self.tick()
            yield i
        levels.pop()


class _Storage:
    """A flat array with, unless it came from the caller, one flag per element that says whether it was written."""

    __slots__ = ("clock", "data", "depth", "get", "history", "name", "read_only", "valid", "valid_lanes")

    def __init__(self, name: str, data: Array, clock: Clock, depth: int, defined: bool) -> None:
        self.name, self.data, self.clock, self.depth = name, data, clock, depth
        # Floats stay numpy scalars of their dtype; integers and bools become Python's.
        self.get: Any = data.item if data.dtype.kind in "biu" else data.__getitem__
        self.valid: bytearray | None = None if defined else bytearray(data.size)
        self.valid_lanes: Any = None if self.valid is None else np.frombuffer(self.valid, np.bool_)
        self.read_only = False
        #: Per level from `depth` on: element -> [last writer, last reader, another reader, last atomic].
        self.history: list[dict[int, list[int]]] = []

    def note(self, k: int, how: str) -> None:
        """Record an access to element `k` at every level outside of which this memory was made."""
        levels = self.clock.levels
        for depth in range(self.depth, len(levels)):
            at = depth - self.depth
            while at >= len(self.history):
                self.history.append({})
            level = levels[depth]
            base, now = level.base, level.now
            seen = self.history[at].get(k)
            if seen is None:
                seen = self.history[at][k] = [-1, -1, -1, -1]
            writer, reader, other, atomic = seen
            if writer >= base and writer != now:
                self.race(k, how, _WRITE)
            if how != _ATOMIC and atomic >= base and atomic != now:
                self.race(k, how, _ATOMIC)
            if how != _READ and ((reader >= base and reader != now) or (other >= base and other != now)):
                self.race(k, how, _READ)
            if how == _WRITE:
                seen[0] = now
            elif how == _ATOMIC:
                seen[3] = now
            elif reader < base:
                seen[1] = now
            elif reader != now:
                seen[2] = now

    def race(self, k: int, how: str, before: str) -> None:
        raise CompilerBug(f"race: element {k} of {self.name} is {how} here and {before} by another iteration or thread")


class Memory:
    """A storage seen as a row-major array of `shape` that starts at element `offset`."""

    __slots__ = ("expected", "offset", "shape", "storage", "strides")

    def __init__(self, storage: _Storage, shape: Sequence[int], offset: int, expected: tuple[int, ...] | None) -> None:
        self.storage, self.shape, self.offset, self.expected = storage, tuple(shape), offset, expected
        strides, size = [], 1
        for n in reversed(self.shape):
            strides.append(size)
            size *= n
        self.strides = tuple(reversed(strides))

    def view(self, offset: int) -> Memory:
        """Return the memory from flat element `offset` on, its shape still to be declared."""
        return Memory(self.storage, (), self.offset + offset, None)

    def declare(self, shape: tuple[int, ...]) -> Memory:
        """Return this memory with the shape that a kernel's parameter declares."""
        # A pass may have merged axes, so an array may also have another shape of as many elements.
        if self.expected is not None and self.expected != shape and math.prod(self.expected) != math.prod(shape):
            raise CompilerBug(f"{self.storage.name} has shape {self.expected}, its declaration says {shape}")
        return Memory(self.storage, shape, self.offset, None)

    # Each access finds its element, checks it and logs it. Scalars are one element, lanes several.

    def at(self, index: tuple[int, ...]) -> int:
        k = self.offset
        for i, n, stride in zip(index, self.shape, self.strides, strict=True):
            if not 0 <= i < n:
                raise CompilerBug(f"out of bounds: {self.storage.name}{list(index)} of shape {list(self.shape)}")
            k += i * stride
        if not 0 <= k < self.storage.data.size:
            raise CompilerBug(
                f"out of bounds: element {k} of {self.storage.name} with {self.storage.data.size} elements"
            )
        return k

    def at_lanes(self, lanes: int, mask: Array | None, index: tuple[Any, ...]) -> Array:
        """Return the elements that the lanes switched on by `mask` touch."""
        columns = [i if isinstance(i, np.ndarray) else np.full(lanes, i) for i in index]
        if mask is not None:
            columns = [c[mask] for c in columns]
        k: Array = np.full(columns[0].size, self.offset)
        inside: Any = True
        for i, n, stride in zip(columns, self.shape, self.strides, strict=True):
            inside = inside & (i >= 0) & (i < n)
            k += i * stride
        if not np.all(inside & (k >= 0) & (k < self.storage.data.size)):
            for lane in zip(*(c.tolist() for c in columns), strict=True):
                self.at(lane)
        return k

    def load(self, *index: int) -> Any:
        k = self.at(index)
        s = self.storage
        if s.valid is not None and not s.valid[k]:
            raise CompilerBug(f"undefined: {s.name}{list(index)} is read before it is written")
        if len(s.clock.levels) > s.depth:
            s.note(k, _READ)
        return s.get(k)

    def load_lanes(self, lanes: int, mask: Array | None, *index: Any) -> Array:
        where = self.at_lanes(lanes, mask, index)
        s = self.storage
        if s.valid is not None and not s.valid_lanes[where].all():
            bad = int(where[~s.valid_lanes[where]][0])
            raise CompilerBug(f"undefined: element {bad} of {s.name} is read before it is written")
        if len(s.clock.levels) > s.depth:
            for k in where.tolist():
                s.note(k, _READ)
        if mask is None:
            return s.data[where]
        out = np.zeros(lanes, s.data.dtype)
        out[mask] = s.data[where]
        return out

    def store(self, value: Any, *index: int) -> None:
        self._write(self.at(index), value)

    def store_lanes(self, value: Array, lanes: int, mask: Array | None, *index: Any) -> None:
        where = self.at_lanes(lanes, mask, index)
        s = self.storage
        self._check_writable()
        if len(s.clock.levels) > s.depth:
            for k in where.tolist():
                s.note(k, _WRITE)
        # Of several lanes that write one element, numpy keeps the last, as a scatter does.
        s.data[where] = value if mask is None else value[mask]
        if s.valid is not None:
            s.valid_lanes[where] = True

    def _check_writable(self) -> None:
        if self.storage.read_only:
            raise CompilerBug(f"{self.storage.name} is a parameter that the kernel only reads")

    def _write(self, k: int, value: Any, how: str = _WRITE) -> None:
        s = self.storage
        self._check_writable()
        if len(s.clock.levels) > s.depth:
            s.note(k, how)
        s.data[k] = value
        if s.valid is not None:
            s.valid[k] = 1

    def atomic(self, op: str, value: Any, *index: int) -> None:
        """Combine `value` into one element; integers wrap around."""
        k = self.at(index)
        s = self.storage
        if s.valid is not None and not s.valid[k]:
            raise CompilerBug(f"undefined: {s.name}{list(index)} is updated before it is written")
        old: Any = s.data[k]
        new = s.data.dtype.type(value)
        is_float = s.data.dtype.kind not in "biu"
        match op:
            case "add":
                result = old + new
            case "min":
                result = fmin(old, new) if is_float else min(old, new)
            case "max":
                result = fmax(old, new) if is_float else max(old, new)
            case _:
                raise CompilerBug(f"unknown atomic operation {op!r}")
        self._write(k, result, _ATOMIC)

    def check_index(self, slot: int, ok: Any, position: Any, mask: Any) -> None:
        """Lower `slot` to each position that is on and not ok."""
        for good, where, on in np.broadcast(ok, position, mask):
            if on and not good:
                self.atomic("min", where, slot)


def given(name: str, array: Array, clock: Clock, read_only: bool) -> Memory:
    """Return `array` of the caller as memory; writes go into it."""
    if not array.flags.c_contiguous:
        raise CompilerBug(f"{name} must be C-contiguous")
    storage = _Storage(name, array.reshape(-1), clock, 0, defined=True)
    storage.read_only = read_only
    return Memory(storage, array.shape, 0, array.shape)


def allocate(name: str, dtype: Any, shape: tuple[int, ...], clock: Clock, depth: int) -> Memory:
    """Return new memory with undefined contents, known to levels from `depth` on."""
    if any(n < 0 for n in shape):
        raise CompilerBug(f"{name} has a negative size: {list(shape)}")
    data: Array = np.zeros(math.prod(shape), np_dtype(dtype))
    return Memory(_Storage(name, data, clock, depth, defined=False), shape, 0, None)
