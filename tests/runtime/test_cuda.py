"""The layer over the CUDA driver, up to the errors without a GPU, and beyond them with a driver made of Python."""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jitflow.errors import ClosedError, DeviceError, FeedError, ForkError, OutOfMemoryError
from runtime import cuda


class Result(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_PTX = 218
    CUDA_ERROR_NOT_FOUND = 500
    CUDA_ERROR_LAUNCH_FAILED = 719


class FakeDriver:
    """Keeps device memory in Python, notes every call, and fails where a test asks for it."""

    CUresult = Result
    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major", CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor"
    )

    def __init__(self, gpus: int = 1, capability: tuple[int, int] = (9, 0)) -> None:
        self.gpus, self.capability = gpus, capability
        self.failures: dict[str, Result] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.memory: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*args: Any) -> tuple[Any, ...]:
            self.calls.append((name, *args))
            if name in self.failures:
                return (self.failures[name], None)
            return (Result.CUDA_SUCCESS, *self.answer(name, args))

        return call

    def answer(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        match name:
            case "cuGetErrorString":
                return (b"what the driver says",)
            case "cuDeviceGetCount":
                return (self.gpus,)
            case "cuDeviceGetName":
                return (b"Pretend GPU\0\0\0",)
            case "cuDeviceGetAttribute":
                return (self.capability[args[0] == "minor"],)
            case "cuMemAlloc":
                block = (ctypes.c_char * args[0])()
                self.memory[ctypes.addressof(block)] = block
                return (ctypes.addressof(block),)
            case "cuMemcpyHtoD" | "cuMemcpyDtoH":
                ctypes.memmove(*args)
                return ()
            case "cuMemFree":
                del self.memory[args[0]]
                return ()
            case "cuLaunchKernel":
                places = (ctypes.c_void_p * 2).from_address(args[9])
                self.launched = [ctypes.c_int64.from_address(p or 0).value for p in places]
                return ()
            case "cuDeviceGet" | "cuDevicePrimaryCtxRetain" | "cuModuleLoadData" | "cuModuleGetFunction":
                return (f"handle of {name}",)
            case _:
                return ()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    driver = FakeDriver()
    monkeypatch.setattr(cuda, "driver", driver)
    return driver


# ---- F54: what is missing is said


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "driver", None)
    with pytest.raises(DeviceError, match=r"cuda:0 needs the package cuda-bindings.*pip install 'jitflow\[cuda\]'"):
        cuda.open_device()


def test_without_the_drivers_library_the_error_says_so(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(flags: int) -> None:
        raise RuntimeError("libcuda.so.1 not found")

    monkeypatch.setattr(fake, "cuInit", missing, raising=False)
    with pytest.raises(DeviceError, match=r"needs the NVIDIA driver, .* cannot be loaded: libcuda.so.1 not found"):
        cuda.open_device()


def test_without_a_gpu_the_error_says_so(fake: FakeDriver) -> None:
    fake.failures["cuInit"] = Result.CUDA_ERROR_NO_DEVICE
    with pytest.raises(DeviceError, match=r"finds no NVIDIA GPU \(cuInit gave CUDA_ERROR_NO_DEVICE\)"):
        cuda.open_device()


@pytest.mark.parametrize(("gpus", "text"), [(0, "0 NVIDIA GPUs"), (1, "1 NVIDIA GPU$"), (2, "2 NVIDIA GPUs")])
def test_a_gpu_that_is_not_there_is_named(fake: FakeDriver, gpus: int, text: str) -> None:
    fake.gpus = gpus
    with pytest.raises(DeviceError, match=f"there is no cuda:2: this machine has {text}"):
        cuda.open_device(2)


def test_an_older_gpu_than_the_code_is_refused_by_name(fake: FakeDriver) -> None:
    fake.capability = (8, 6)
    device = cuda.open_device()
    with pytest.raises(DeviceError, match=r"cuda:0 \(Pretend GPU\) has compute capability 8.6, the code needs 9.0"):
        device.load("", "sm_90")
    device.load("", "sm_80")


def test_a_failed_call_is_named_with_the_drivers_word(fake: FakeDriver) -> None:
    fake.failures["cuModuleLoadData"] = Result.CUDA_ERROR_INVALID_PTX
    with pytest.raises(
        DeviceError, match="cuda:0: cuModuleLoadData failed with CUDA_ERROR_INVALID_PTX: what the driver says"
    ):
        cuda.open_device().load("nonsense", "sm_90")


# ---- loading and launching


def test_arguments_are_packed_as_64_bit_words(fake: FakeDriver) -> None:
    device = cuda.open_device()
    kernel = device.load("the ptx", "sm_90").kernel("k")
    assert ("cuModuleLoadData", b"the ptx\0") in fake.calls
    kernel.launch((7, 1, 1), (256, 1, 1), 512, [2**40 + 5, -1])
    assert fake.launched == [2**40 + 5, -1]
    launch = next(c for c in fake.calls if c[0] == "cuLaunchKernel")
    assert launch[2:10] == (7, 1, 1, 256, 1, 1, 512, 0)


def test_an_empty_grid_is_not_launched(fake: FakeDriver) -> None:
    device = cuda.open_device()
    device.load("", "sm_90").kernel("k").launch((0, 1, 1), (256, 1, 1), 0, [])
    assert not any(c[0] == "cuLaunchKernel" for c in fake.calls)


def test_the_context_is_current_before_every_call(fake: FakeDriver) -> None:
    device = cuda.open_device()
    del fake.calls[:]
    device.synchronize()
    assert [c[0] for c in fake.calls] == ["cuCtxSetCurrent", "cuCtxSynchronize"]


def test_a_kernel_that_failed_is_noticed_when_waiting(fake: FakeDriver) -> None:
    device = cuda.open_device()
    fake.failures["cuCtxSynchronize"] = Result.CUDA_ERROR_LAUNCH_FAILED
    with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED"):
        device.synchronize()


# ---- memory


def test_arrays_go_to_the_device_and_back(fake: FakeDriver) -> None:
    device = cuda.open_device()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    memory = device.allocate(x.nbytes)
    memory.copy_from(x)
    out = np.zeros_like(x)
    memory.copy_to(out)
    assert (out == x).all()
    memory.free()
    memory.free()
    assert not fake.memory


def test_no_bytes_need_no_memory(fake: FakeDriver) -> None:
    memory = cuda.open_device().allocate(0)
    memory.copy_from(np.zeros((0, 3)))
    memory.copy_to(np.zeros((3, 0)))
    memory.free()
    assert not any(c[0].startswith("cuMem") for c in fake.calls)


def test_full_memory_is_a_memory_error_with_the_size(fake: FakeDriver) -> None:
    fake.failures["cuMemAlloc"] = Result.CUDA_ERROR_OUT_OF_MEMORY
    with pytest.raises(OutOfMemoryError, match="cuda:0 has no room for 1000000 bytes") as caught:
        cuda.open_device().allocate(1000000)
    assert isinstance(caught.value, MemoryError)


def test_other_failures_to_allocate_stay_device_errors(fake: FakeDriver) -> None:
    fake.failures["cuMemAlloc"] = Result.CUDA_ERROR_LAUNCH_FAILED
    with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED"):
        cuda.open_device().allocate(8)


def test_arrays_that_do_not_fit_are_refused_before_the_copy(fake: FakeDriver) -> None:
    memory = cuda.open_device().allocate(24)
    for bad in (np.zeros(2), np.zeros((3, 2))[:, :1]):
        with pytest.raises(FeedError, match="for 24 bytes of device memory"):
            memory.copy_from(bad)
    fixed = np.zeros(3)
    fixed.setflags(write=False)
    with pytest.raises(FeedError, match="read-only"):
        memory.copy_to(fixed)
    assert not any(c[0].startswith("cuMemcpy") for c in fake.calls)


# ---- lifetime


def test_a_closed_device_refuses_work(fake: FakeDriver) -> None:
    device = cuda.open_device()
    device.close()
    device.close()
    assert [c[0] for c in fake.calls].count("cuDevicePrimaryCtxRelease") == 1
    with pytest.raises(ClosedError, match="cuda:0 is closed"):
        device.allocate(8)


def test_a_forked_child_is_told_to_open_the_device_again(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    device = cuda.open_device()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ForkError, match="open it again in the child"):
        device.synchronize()
    device.close()
    assert not any(c[0] == "cuDevicePrimaryCtxRelease" for c in fake.calls)


# ---- on hardware


@pytest.mark.cuda
def test_a_kernel_runs_on_a_gpu() -> None:
    ptx = """.version 8.3
.target sm_70
.address_size 64
.visible .entry twice(.param .u64 a, .param .u64 n)
{
    .reg .pred %p; .reg .f32 %x; .reg .b32 %t; .reg .b64 %d<5>;
    ld.param.u64 %d0, [a];
    ld.param.u64 %d1, [n];
    mov.u32 %t, %tid.x;
    cvt.u64.u32 %d2, %t;
    setp.ge.u64 %p, %d2, %d1;
    @%p ret;
    shl.b64 %d3, %d2, 2;
    add.u64 %d4, %d0, %d3;
    ld.global.f32 %x, [%d4];
    add.rn.f32 %x, %x, %x;
    st.global.f32 [%d4], %x;
    ret;
}
"""
    device = cuda.open_device()
    x = np.arange(5, dtype=np.float32)
    memory = device.allocate(x.nbytes)
    memory.copy_from(x)
    device.load(ptx, "sm_70").kernel("twice").launch((1, 1, 1), (32, 1, 1), 0, [memory.pointer, 4])
    device.synchronize()
    out = np.zeros_like(x)
    memory.copy_to(out)
    memory.free()
    device.close()
    assert out.tolist() == [0, 2, 4, 6, 4]
