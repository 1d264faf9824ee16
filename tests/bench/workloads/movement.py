"""Data that moves: transposes, slices, concat, gather; a stencil, an image made ready, the nearest of many points."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.workloads.workload import Array, Workload, family, random


@family(sizes=((1024, 1024), (4096, 4096)), odd=((4095, 1023),), small=(5, 7))
def transpose(rows: int, columns: int) -> Workload:
    return _permute(f"transpose {rows}x{columns}", (rows, columns), (1, 0))


def _permute(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Workload:
    return Workload(
        name=name,
        bar=1.2,
        body=lambda xp, x: xp.contiguous(xp.permute(x, axes)),
        inputs=lambda: (random(*shape),),
        tolerance=0.0,
        options={"axes": axes},
    )


@family(
    sizes=(((8, 64, 56, 56), (0, 2, 3, 1)), ((8, 56, 56, 64), (0, 3, 1, 2)), ((8, 512, 12, 64), (0, 2, 1, 3))),
    odd=(((3, 61, 57, 55), (0, 2, 3, 1)), ((50, 60, 70), (2, 1, 0))),
    small=((2, 3, 4, 5), (0, 2, 3, 1)),
)
def permute(shape: tuple[int, ...], axes: tuple[int, ...]) -> Workload:
    return _permute(f"permute {'x'.join(map(str, shape))} to {''.join(map(str, axes))}", shape, axes)


@family(sizes=((2048, 2048),), odd=((2047, 1999),), small=(7, 9))
def slice_strided(rows: int, columns: int) -> Workload:
    """Every other element of each row but the first and the last."""
    taken = (rows - 2) * ((columns - 1) // 2)
    return Workload(
        name=f"x[1:-1, 1::2] {rows}x{columns}",
        bar=1.2,
        body=lambda xp, x: xp.contiguous(x[1:-1, 1 : columns - 1 + columns % 2 : 2]),
        inputs=lambda: (random(rows, columns),),
        # What lies between is in the same cache lines.
        read=8 * taken,
        written=4 * taken,
        tolerance=0.0,
    )


@family(sizes=((2048, 2048),), odd=((2047, 1999),), small=(7, 9))
def slice_reversed(rows: int, columns: int) -> Workload:
    return Workload(
        name=f"x[::-1, ::-1] {rows}x{columns}",
        bar=1.2,
        body=lambda xp, x: xp.contiguous(xp.flip(x)),
        inputs=lambda: (random(rows, columns),),
        tolerance=0.0,
    )


@family(
    sizes=(((1024, 512), (1024, 256), 1), ((512, 1024), (2048, 1024), 0)),
    odd=(((1001, 333), (1001, 77), 1),),
    small=((3, 4), (3, 2), 1),
)
def concat(first: tuple[int, int], second: tuple[int, int], axis: int) -> Workload:
    return Workload(
        name=f"concat axis {axis} {first[0]}x{first[1]}, {second[0]}x{second[1]}",
        bar=1.2,
        body=lambda xp, a, b: xp.concat((a, b), axis=axis),
        inputs=lambda: (random(*first), random(*second, seed=1)),
        tolerance=0.0,
        options={"axis": axis},
    )


@family(sizes=((50_000, 128, 8192), (1000, 768, 512)), odd=((30_011, 77, 5003),), small=(9, 3, 5))
def gather(rows: int, columns: int, n: int) -> Workload:
    return Workload(
        name=f"gather {n} rows of {rows}x{columns}",
        bar=1.2,
        body=lambda xp, x, indices: xp.take(x, indices),
        inputs=lambda: (random(rows, columns), np.random.default_rng(1).integers(0, rows, n)),
        read=n * (4 * columns + 8),
        tolerance=0.0,
    )


@family(sizes=((1024, 1024), (4096, 4096)), odd=((4095, 1023),), small=(5, 7))
def stencil(rows: int, columns: int) -> Workload:
    def body(xp: Any, x: Any) -> Any:
        around = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:]
        return 0.5 * x[1:-1, 1:-1] + 0.125 * around

    return Workload(
        name=f"stencil of 5 points {rows}x{columns}",
        bar=1.0,
        body=body,
        inputs=lambda: (random(rows, columns),),
    )


@family(sizes=((224, 224), (1080, 1920)), odd=((333, 501),), small=(3, 5))
def image(height: int, width: int) -> Workload:
    """Bytes in rows of pixels become normalised float32 planes."""

    def constants() -> tuple[Array, ...]:
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return tuple(np.array(v, np.float32).reshape(3, 1, 1) for v in (mean, deviation))

    def body(xp: Any, x: Any, mean: Any, deviation: Any) -> Any:
        return xp.contiguous((xp.to_float32(xp.permute(x, (2, 0, 1))) / 255.0 - mean) / deviation)

    return Workload(
        name=f"image {height}x{width}x3 to planes",
        bar=1.2,
        body=body,
        inputs=lambda: (np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8),),
        constants=constants,
    )


@family(sizes=((4096, 512, 64), (20_000, 64, 16)), odd=((1000, 333, 50),), small=(7, 3, 4))
def pairwise_argmin(points: int, centers: int, dim: int) -> Workload:
    """The nearest centre of each point, by squared distance."""

    def inputs() -> tuple[Array, ...]:
        y = random(centers, dim, seed=1)
        chosen = np.random.default_rng(2).integers(0, centers, points)
        # Near enough to one centre that rounding cannot make another the nearest.
        return y[chosen] + random(points, dim) * np.float32(0.1), y

    def body(xp: Any, x: Any, y: Any) -> Any:
        product = xp.matmul(x, xp.transpose(y))
        squares = xp.sum(x * x, axis=1, keepdims=True), xp.sum(y * y, axis=1, keepdims=False)
        return xp.argmin(squares[0] - 2.0 * product + squares[1], axis=1)

    return Workload(
        name=f"pairwise distance, argmin {points}x{centers} dim {dim}",
        bar=1.5,
        body=body,
        inputs=inputs,
        flops=2.0 * points * centers * dim,
        tolerance=0.0,
    )
