"""Targets by name, and the facts they state."""

from __future__ import annotations

import platform

import pytest

from jitflow.dtypes import bool_, float32, float64, int16
from jitflow.errors import DeviceError
from lowering.target import _x86_level, from_name, host, machine


def test_levels_of_x86_differ_in_width_masks_and_fma() -> None:
    v2, v3, v4 = (from_name(f"x86-64-v{k}") for k in (2, 3, 4))
    assert [t.lanes(float32) for t in (v2, v3, v4)] == [4, 8, 16]
    assert [t.lanes(float64) for t in (v2, v3, v4)] == [2, 4, 8]
    assert v4.lanes(bool_) == 64
    assert [t.has_fma for t in (v2, v3, v4)] == [False, True, True]
    assert [t.can_mask(float32) for t in (v2, v3, v4)] == [False, True, True]
    assert [t.can_mask(int16) for t in (v2, v3, v4)] == [False, False, True]
    assert [t.vector_registers for t in (v2, v3, v4)] == [16, 16, 32]


def test_the_host_is_one_object_with_its_own_features() -> None:
    assert from_name("host") is host()
    assert not host().is_gpu
    if platform.machine() == "x86_64":
        assert "+sse2" in host().features


def test_a_gpu_is_named_by_its_architecture() -> None:
    gpu = from_name("nvptx:sm_90")
    assert gpu.is_gpu
    assert gpu.triple.startswith("nvptx64")
    assert gpu.cpu == "sm_90"


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64", "nvptx:sm_90"])
def test_the_layout_of_a_target_is_that_of_its_machine(name: str) -> None:
    target = from_name(name)
    assert str(machine(target).target_data) == target.layout
    assert target.fingerprint != host().fingerprint


@pytest.mark.parametrize("name", ["pentium", "nvptx:", "nvptx:gfx90a", "x86-64-v5"])
def test_an_unknown_target_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(DeviceError, match=f"no target is called '{name}'; known are host, x86-64-v2,"):
        from_name(name)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="about x86-64")
def test_only_code_that_this_machine_has_instructions_for_runs_here() -> None:
    assert host().runs_here()
    assert from_name("x86-64-v2").runs_here()
    assert from_name("x86-64-v4").runs_here() == (host().vector_bits == 512)
    assert not from_name("aarch64").runs_here()
    assert not from_name("nvptx:sm_90").runs_here()


def test_zen_keeps_more_in_its_third_level_before_stores_pass_it() -> None:
    assert from_name("x86-64-v4").stream_bytes == 8 << 20
    assert _x86_level("x86-64-v4", "x86_64-unknown-linux-gnu", "znver4", "").stream_bytes == 32 << 20
