"""What the array API standard asks a namespace about: dtypes, devices, capabilities, as plain dicts."""

from __future__ import annotations

from typing import Any

from jitflow.dtype_info import KINDS
from jitflow.dtypes import (
    DType,
    bool_,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from jitflow.errors import GraphError
from jitflow.ops.axes import DEVICE, check_device
from jitflow.types import MAX_RANK

#: float16 and bfloat16 are no dtypes of the standard, and complex numbers there are none yet.
_DTYPES = (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64)


class NamespaceInfo:
    """The inspection functions of the array API standard; see `jitflow.__array_namespace_info__`."""

    def capabilities(self) -> dict[str, Any]:
        """Return what depends on values and is therefore not supported, and how many axes a tensor may have.

        Examples
        --------
        >>> import jitflow as jf
        >>> jf.__array_namespace_info__().capabilities()
        {'boolean indexing': False, 'data-dependent shapes': False, 'max dimensions': 64}
        """
        return {"boolean indexing": False, "data-dependent shapes": False, "max dimensions": MAX_RANK}

    def default_device(self) -> str:
        """Return the device of every tensor: that of the session that will run it."""
        return DEVICE

    def devices(self) -> list[str]:
        """Return the devices a tensor can be on. A session knows more; see `jitflow.Session`."""
        return [DEVICE]

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """Return the dtypes of what is made from Python numbers. There is none for complex ones.

        Raises
        ------
        DeviceError
            For another `device`.

        Examples
        --------
        >>> import jitflow as jf
        >>> jf.__array_namespace_info__().default_dtypes()["real floating"]
        jitflow.float64
        """
        check_device(device, "default_dtypes")
        return {"real floating": float64, "integral": int64, "indexing": int64}

    def dtypes(self, *, device: Any = None, kind: str | tuple[str, ...] | None = None) -> dict[str, DType]:
        """Return the dtypes of the standard by name: all, or those of a kind or several.

        Raises
        ------
        GraphError
            For an unknown `kind`.
        DeviceError
            For another `device`.

        Examples
        --------
        >>> import jitflow as jf
        >>> list(jf.__array_namespace_info__().dtypes(kind="real floating"))
        ['float32', 'float64']
        """
        check_device(device, "dtypes")
        kinds = tuple(KINDS) if kind is None else (kind,) if isinstance(kind, str) else kind
        for k in kinds:
            if k not in KINDS:
                raise GraphError(f"dtypes: unknown kind {k!r}; kinds are {', '.join(map(repr, KINDS))}")
        return {d.name: d for d in _DTYPES if any(d.kind in KINDS[k] for k in kinds)}


def array_namespace_info() -> NamespaceInfo:
    """Return what the array API standard asks a namespace about: dtypes, devices, capabilities.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.__array_namespace_info__().devices()
    ['session']
    """
    return NamespaceInfo()
