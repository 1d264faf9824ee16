"""The arrays that the programs of a session read besides their inputs, each made and kept once.

They are the graph's own constants and variables, and what a bundle's init programs make of them. Two bundles of a
session that want the same array in the same layout share it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from jitflow.dtypes import as_dtype, numpy_dtype
from runtime.arenas import Array, aligned_array
from runtime.bundle import Bundle, Const, Executable, Given, Made, Stored

#: Runs an init program on its constants, and leaves its results in the arrays given.
Run = Callable[[Executable, Sequence[Array], Sequence[Array]], None]


class Constants:
    """The constants of one session. With `guard`, each ends at an inaccessible page."""

    def __init__(self, *, guard: bool) -> None:
        self._guard = guard
        self._arrays: dict[Hashable, Array] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all constants."""
        return sum(a.nbytes for a in self._arrays.values())

    def arrays(self, bundle: Bundle, sources: Sequence[tuple[Hashable, Array]], run: Run) -> list[Array]:
        """Return the constants of the main program of `bundle`, in order.

        `sources` are the arrays of the graph by number, each with what identifies it in the session. Init programs of
        which an output is missing are `run`, in order.
        """
        made: list[tuple[Hashable, ...]] = []  # the keys of the outputs of each init program
        for program in bundle.inits:
            consts = [self._key(c, sources, made) for c in program.consts]
            keys = tuple(
                (consts[kept.source], kept.layout) if kept.source is not None else (program.code, *consts, k)
                for k, kept in enumerate(program.kept)
            )
            made.append(keys)
            if any(key not in self._arrays for key in keys):
                outputs = zip(program.kept, program.signature.outputs, strict=True)
                fresh = [aligned_array(kept.shape, y.dtype, guard=self._guard) for kept, y in outputs]
                run(program, [self._array(c, sources, made) for c in program.consts], fresh)
                for key, array in zip(keys, fresh, strict=True):
                    self._arrays.setdefault(key, array)
        return [self._array(c, sources, made) for c in bundle.main.consts]

    @staticmethod
    def _key(c: Const, sources: Sequence[tuple[Hashable, Array]], made: Sequence[tuple[Hashable, ...]]) -> Hashable:
        """Return what identifies a constant in this session."""
        match c:
            case Given(number):
                return sources[number][0]
            case Made(program, output):
                return made[program][output]
            case Stored():
                return c

    def _array(
        self, c: Const, sources: Sequence[tuple[Hashable, Array]], made: Sequence[tuple[Hashable, ...]]
    ) -> Array:
        key = self._key(c, sources, made)
        found = self._arrays.get(key)
        if found is None:
            array = _stored(c) if isinstance(c, Stored) else sources[c.number][1] if isinstance(c, Given) else None
            assert array is not None, "init programs come before those that read what they make"
            found = self._arrays[key] = self._placed(array)
        return found

    def _placed(self, array: Array) -> Array:
        """Return `array` where programs can read it."""
        plain = np.require(array, requirements=["C", "A"])
        if not self._guard:
            return plain
        moved = aligned_array(plain.shape, as_dtype(plain.dtype), guard=True)
        np.copyto(moved, plain)
        return moved


def _stored(c: Stored) -> Array:
    return np.ndarray(c.shape, numpy_dtype(c.dtype), buffer=c.data)
