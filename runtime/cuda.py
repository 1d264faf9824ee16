"""PTX text in, kernels that run on an NVIDIA GPU out: a thin layer over the driver, by the optional extra ``cuda``.

It needs the driver and the package cuda-bindings, no toolkit: the driver assembles the PTX. What is missing is said by
the first :func:`open_device`, as a DeviceError that names it; importing this module never fails.

Every call of the driver goes through :meth:`Device.call`, which makes the device's context current and turns a failure
into an error with the call's name and the driver's word for it. Memory and modules are freed explicitly, or with their
device. A context does not survive ``fork``: in a child every use is a ForkError.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from jitflow.errors import ClosedError, DeviceError, FeedError, ForkError, OutOfMemoryError

try:
    from cuda.bindings import driver as _installed
except ImportError:
    _installed = None

#: The binding, or None where the extra is not installed; tests put a driver without hardware here.
driver: Any = _installed

Array = np.ndarray[Any, np.dtype[Any]]

_opening = threading.Lock()


def open_device(number: int = 0) -> Device:
    """Return GPU `number` with its primary context retained. Close it after use.

    Raises DeviceError that says which is missing: the package, the driver, a GPU, or this one.
    """
    name = f"cuda:{number}"
    if driver is None:
        raise DeviceError(
            f"{name} needs the package cuda-bindings, which is not installed: pip install 'jitflow[cuda]'"
        )
    with _opening:
        try:
            _check("cuInit", driver.cuInit(0), name)
        except DeviceError:
            raise
        except Exception as error:
            # The binding looks for the library at its first call, and has changed the type of this error over time.
            raise DeviceError(f"{name} needs the NVIDIA driver, whose library cannot be loaded: {error}") from None
        (count,) = _check("cuDeviceGetCount", driver.cuDeviceGetCount(), name)
        if not 0 <= number < count:
            raise DeviceError(f"there is no {name}: this machine has {count} NVIDIA GPU{'' if count == 1 else 's'}")
        (handle,) = _check("cuDeviceGet", driver.cuDeviceGet(number), name)
        (context,) = _check("cuDevicePrimaryCtxRetain", driver.cuDevicePrimaryCtxRetain(handle), name)
    return Device(number, handle, context)


def _check(call: str, result: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    """Return what a call of the driver gave besides its status. Raises DeviceError if the status is a failure."""
    status, *values = result
    if status == driver.CUresult.CUDA_SUCCESS:
        return tuple(values)
    word = getattr(status, "name", str(status))
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        raise DeviceError(f"{device}: the driver finds no NVIDIA GPU ({call} gave {word})")
    text = ""
    said = driver.cuGetErrorString(status)
    if said[0] == driver.CUresult.CUDA_SUCCESS and isinstance(said[1], bytes):
        text = f": {said[1].decode(errors='replace')}"
    raise DeviceError(f"{device}: {call} failed with {word}{text}")


class Device:
    """One GPU. Calls from several threads are allowed; work is done in order."""

    def __init__(self, number: int, handle: Any, context: Any) -> None:
        self.number = number
        self._handle, self._context = handle, context
        self._process = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        return f"cuda:{self.number}"

    def call(self, name: str, *args: Any) -> tuple[Any, ...]:
        """Call function `name` of the driver in this device's context and return its results."""
        if self._process != os.getpid():
            raise ForkError(f"{self!r} was opened before this process was forked; open it again in the child")
        if self._closed:
            raise ClosedError(f"{self!r} is closed")
        _check("cuCtxSetCurrent", driver.cuCtxSetCurrent(self._context), repr(self))
        return _check(name, getattr(driver, name)(*args), repr(self))

    @property
    def name(self) -> str:
        """The name of the product."""
        (raw,) = self.call("cuDeviceGetName", 128, self._handle)
        return bytes(raw).split(b"\0")[0].decode(errors="replace")

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability: (9, 0) runs code for sm_90 and below."""
        kinds = driver.CUdevice_attribute
        major = self.call("cuDeviceGetAttribute", kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, self._handle)
        minor = self.call("cuDeviceGetAttribute", kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, self._handle)
        return int(major[0]), int(minor[0])

    def load(self, ptx: str, chip: str) -> Module:
        """Return the loaded kernels of `ptx`, which was made for `chip` (``sm_90``).

        Raises DeviceError if this GPU is older than the chip.
        """
        has, wants = self.capability, divmod(int(chip.removeprefix("sm_")), 10)
        if has < wants:
            raise DeviceError(
                f"{self!r} ({self.name}) has compute capability {has[0]}.{has[1]}, the code needs {wants[0]}.{wants[1]}"
            )
        (handle,) = self.call("cuModuleLoadData", ptx.encode() + b"\0")
        return Module(self, handle)

    def allocate(self, nbytes: int) -> Memory:
        """Return `nbytes` bytes of device memory, undefined, aligned to 256.

        Raises OutOfMemoryError with the size if there is no room.
        """
        if nbytes == 0:
            return Memory(self, 0, 0)
        try:
            (pointer,) = self.call("cuMemAlloc", nbytes)
        except DeviceError as error:
            if "CUDA_ERROR_OUT_OF_MEMORY" in str(error):
                raise OutOfMemoryError(f"{self!r} has no room for {nbytes} bytes") from None
            raise
        return Memory(self, int(pointer), nbytes)

    def synchronize(self) -> None:
        """Wait until everything that was started is done. Raises DeviceError if a kernel failed."""
        self.call("cuCtxSynchronize")

    def close(self) -> None:
        """Release the context, and with it everything that was loaded and allocated."""
        if not self._closed and self._process == os.getpid():
            self._closed = True
            _check("cuDevicePrimaryCtxRelease", driver.cuDevicePrimaryCtxRelease(self._handle), repr(self))


class Memory:
    """Device memory at `pointer`, which is 0 for no bytes."""

    def __init__(self, device: Device, pointer: int, nbytes: int) -> None:
        self.device, self.pointer, self.nbytes = device, pointer, nbytes

    def copy_from(self, array: Array) -> None:
        """Fill it with the bytes of a C-contiguous array of the same size."""
        self._check_array(array)
        if self.nbytes:
            self.device.call("cuMemcpyHtoD", self.pointer, array.ctypes.data, self.nbytes)

    def copy_to(self, array: Array) -> None:
        """Fill a C-contiguous, writable array of the same size from it, when everything before is done."""
        self._check_array(array)
        if not array.flags.writeable:
            raise FeedError("cannot copy from the device into a read-only array")
        if self.nbytes:
            self.device.call("cuMemcpyDtoH", array.ctypes.data, self.pointer, self.nbytes)

    def _check_array(self, array: Array) -> None:
        if not array.flags.c_contiguous or array.nbytes != self.nbytes:
            layout = "" if array.flags.c_contiguous else "not contiguous, "
            raise FeedError(f"an array of {layout}{array.nbytes} bytes for {self.nbytes} bytes of device memory")

    def free(self) -> None:
        """Give the memory back; a second time does nothing."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            self.device.call("cuMemFree", pointer)


class Module:
    """The kernels of one PTX text."""

    def __init__(self, device: Device, handle: Any) -> None:
        self.device, self._handle = device, handle

    def kernel(self, name: str) -> LoadedKernel:
        """Return the kernel called `name`."""
        (handle,) = self.device.call("cuModuleGetFunction", self._handle, name.encode())
        return LoadedKernel(self.device, name, handle)

    def unload(self) -> None:
        """Remove the kernels from the device; they must not be running."""
        self.device.call("cuModuleUnload", self._handle)


class LoadedKernel:
    """A kernel that can be launched. All its parameters are 64 bits wide: pointers, then dims."""

    def __init__(self, device: Device, name: str, handle: Any) -> None:
        self.device, self.name, self._handle = device, name, handle

    def launch(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], shared_bytes: int, args: Sequence[int]
    ) -> None:
        """Start the kernel on `grid` blocks of `block` threads; nothing is started if there are none. Does not wait."""
        if 0 in grid:
            return
        values = (ctypes.c_int64 * len(args))(*args)
        start, step = ctypes.addressof(values), ctypes.sizeof(ctypes.c_int64)
        places = (ctypes.c_void_p * len(args))(*(start + k * step for k in range(len(args))))
        # The driver reads the arguments before it returns, so they need not live longer.
        self.device.call("cuLaunchKernel", self._handle, *grid, *block, shared_bytes, 0, ctypes.addressof(places), 0)
