"""Memory that ends at an inaccessible page: an access beyond it ends the process at once instead of going unnoticed.

For debugging (``JITFLOW_DEBUG_GUARD``) and for the fuzzer: slow, and at least three pages for each block.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from typing import Any

import numpy as np

from jitflow.dtypes import DType, numpy_dtype
from jitflow.errors import DeviceError, OutOfMemoryError

_PAGE = mmap.PAGESIZE
_NO_ACCESS = 0


def allocate_guarded(nbytes: int, align: int) -> tuple[mmap.mmap, int]:
    """Return the owner and the address of `nbytes` of memory, a multiple of `align`, between two inaccessible pages.

    The block ends at the second one, but for what the alignment leaves; all of it is filled with bytes 0xFF. Raises
    OutOfMemoryError, and DeviceError on systems without ``mprotect``.
    """
    if not sys.platform.startswith(("linux", "darwin")):
        raise DeviceError(f"guarded memory is not available on {sys.platform}")
    size = -(-nbytes // align) * align
    whole = -(-max(size, 1) // _PAGE) * _PAGE
    try:
        pages = mmap.mmap(-1, whole + 2 * _PAGE)
    except (OSError, OverflowError, ValueError, MemoryError):
        raise OutOfMemoryError(f"no memory for {nbytes} guarded bytes") from None
    first = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    ctypes.memset(first + _PAGE, 0xFF, whole)
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (first, first + _PAGE + whole):
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), _NO_ACCESS):
            raise OutOfMemoryError(f"a page could not be protected (errno {ctypes.get_errno()})")
    return pages, first + _PAGE + whole - size


def guarded_array(shape: tuple[int, ...], dtype: DType, align: int) -> np.ndarray[Any, Any]:
    """Return an array of bytes 0xFF that ends at an inaccessible page, but for what `align` leaves.

    Raises what :func:`allocate_guarded` does, and DTypeError for bfloat16 without the package ml_dtypes.

    Examples
    --------
    >>> import jitflow as jf
    >>> guarded_array((3,), jf.float32, 4)
    array([nan, nan, nan], dtype=float32)
    """
    of = numpy_dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    pages, address = allocate_guarded(nbytes, align)
    raw = np.frombuffer(pages, np.uint8)
    first = address - raw.__array_interface__["data"][0]
    return raw[first : first + nbytes].view(of).reshape(shape)
