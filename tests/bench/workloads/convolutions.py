"""Convolutions with bias and relu: 1x1, 3x3, 7x7 with stride 2, depthwise; one image and eight."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.workloads.workload import Array, Workload, family, random


def _conv(
    name: str, batch: int, channels: int, size: tuple[int, int], outputs: int, window: int, **how: int
) -> Workload:
    """Return relu(conv(x) + bias) with "same" padding; `how` gives the stride and the groups."""
    stride, groups = how.get("stride", 1), how.get("groups", 1)
    padding = window // 2

    def body(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
        return xp.relu(xp.conv(x, weight, bias, stride=stride, padding=padding, groups=groups))

    def constants() -> tuple[Array, ...]:
        taps = channels // groups * window**2
        weight = random(outputs, channels // groups, window, window, seed=1) * np.float32(taps**-0.5)
        return weight, random(outputs, seed=2)

    height, width = ((n + 2 * padding - window) // stride + 1 for n in size)
    return Workload(
        name=f"{name} {channels}->{outputs} {size[0]}x{size[1]} N={batch}",
        bar=1.0,
        body=body,
        inputs=lambda: (random(batch, channels, *size),),
        constants=constants,
        flops=2.0 * batch * outputs * height * width * channels // groups * window**2,
        options={"stride": stride, "padding": padding, "groups": groups},
    )


@family(sizes=((1, 256, 64, 56), (8, 256, 64, 56)), odd=((1, 131, 67, 33),), small=(2, 3, 5, 4))
def conv_1x1(batch: int, channels: int, outputs: int, size: int) -> Workload:
    return _conv("conv 1x1", batch, channels, (size, size), outputs, 1)


@family(
    sizes=((1, 64, 64, 56, 56), (8, 64, 64, 56, 56), (1, 256, 256, 14, 14)),
    odd=((1, 61, 67, 57, 55), (3, 17, 33, 45, 91)),
    small=(2, 3, 5, 5, 6),
)
def conv_3x3(batch: int, channels: int, outputs: int, height: int, width: int) -> Workload:
    return _conv("conv 3x3", batch, channels, (height, width), outputs, 3)


@family(sizes=((1, 3, 64, 224), (8, 3, 64, 224)), odd=((1, 3, 50, 201),), small=(2, 3, 4, 9))
def conv_7x7_stride_2(batch: int, channels: int, outputs: int, size: int) -> Workload:
    return _conv("conv 7x7 stride 2", batch, channels, (size, size), outputs, 7, stride=2)


@family(sizes=((1, 144, 56), (8, 144, 56)), odd=((1, 101, 57),), small=(2, 3, 6))
def conv_depthwise(batch: int, channels: int, size: int) -> Workload:
    return _conv("conv 3x3 depthwise", batch, channels, (size, size), channels, 3, groups=channels)
