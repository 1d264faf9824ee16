"""Functions whose result has a shape that depends on values: they say why a graph cannot have them, and what can.

A graph is typed before anything runs, so that its code is compiled once and its memory is known in advance. These names
of the array API standard exist so that whoever calls them is told so.
"""

from __future__ import annotations

from typing import NoReturn

from jitflow.errors import DataDependentShapeError
from jitflow.graph import Operand, as_node, located
from jitflow.public import public


def _refuse(name: str, x: Operand, advice: str) -> NoReturn:
    node = as_node(x)
    what = f"{name}: how many elements the result has would depend on the values of {node!r}"
    raise located(DataDependentShapeError(f"{what}; {advice}"))


_MASK = "keep the mask and use where(mask, x, y), count_nonzero(mask), or call numpy on the result of a run"
_UNIQUE = "use sort(x), which puts equal values side by side, or call numpy on the result of a run"


@public()
def nonzero(x: Operand, /) -> NoReturn:
    """Raise an error: how many elements are not zero is not known before a run.

    A mask that is known when the graph is built may index: ``x[np.array([True, False])]``.

    Raises
    ------
    DataDependentShapeError
        Always.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.nonzero(jf.constant([0, 1]))
    Traceback (most recent call last):
    jitflow.errors.DataDependentShapeError: nonzero: how many elements the result has would depend on ...
    """
    _refuse("nonzero", x, _MASK)


@public()
def argwhere(x: Operand, /) -> NoReturn:
    """Raise an error: how many elements are not zero is not known before a run.

    Raises
    ------
    DataDependentShapeError
        Always.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.argwhere(jf.constant([0, 1]))
    Traceback (most recent call last):
    jitflow.errors.DataDependentShapeError: argwhere: how many elements the result has would depend on ...
    """
    _refuse("argwhere", x, _MASK)


@public()
def unique_all(x: Operand, /) -> NoReturn:
    """Raise an error: how many different values there are is not known before a run.

    Raises
    ------
    DataDependentShapeError
        Always.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.unique_all(jf.constant([0, 1]))
    Traceback (most recent call last):
    jitflow.errors.DataDependentShapeError: unique_all: how many elements the result has would depend on ...
    """
    _refuse("unique_all", x, _UNIQUE)


@public()
def unique_counts(x: Operand, /) -> NoReturn:
    """Raise an error: how many different values there are is not known before a run.

    Raises
    ------
    DataDependentShapeError
        Always.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.unique_counts(jf.constant([0, 1]))
    Traceback (most recent call last):
    jitflow.errors.DataDependentShapeError: unique_counts: how many elements the result has would depend on ...
    """
    _refuse("unique_counts", x, _UNIQUE)


@public()
def unique_inverse(x: Operand, /) -> NoReturn:
    """Raise an error: how many different values there are is not known before a run.

    Raises
    ------
    DataDependentShapeError
        Always.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.unique_inverse(jf.constant([0, 1]))
    Traceback (most recent call last):
    jitflow.errors.DataDependentShapeError: unique_inverse: how many elements the result has would depend on ...
    """
    _refuse("unique_inverse", x, _UNIQUE)


@public()
def unique_values(x: Operand, /) -> NoReturn:
    """Raise an error: how many different values there are is not known before a run.

    Raises
    ------
    DataDependentShapeError
        Always.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.unique_values(jf.constant([0, 1]))
    Traceback (most recent call last):
    jitflow.errors.DataDependentShapeError: unique_values: how many elements the result has would depend on ...
    """
    _refuse("unique_values", x, _UNIQUE)
