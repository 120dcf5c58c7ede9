"""Arrow's arrays from what records are written of, as ``pa.array`` makes them, but from the bytes.

``pa.array`` asks of everything whether it is pandas' or a masked array, and imports both for that: 0.3 s of CPU time
where pandas is installed, in a process that needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def array(values: Any, kind: pa.DataType) -> pa.Array:
    """``values`` (an array of numbers, or a list of objects or None) with that type; raises as ``pa.array`` does."""
    if isinstance(values, np.ndarray):
        found = of_numbers(values) if values.dtype == _dtype(kind) else None
    elif not isinstance(values, list):
        found = None
    elif pa.types.is_string(kind):
        found = _of_texts(values, kind)
    elif pa.types.is_list(kind):
        found = _of_lists(values, kind)
    else:
        found = _of_objects(values, kind)
    return pa.array(values, kind) if found is None else found


def of_numbers(values: NDArray[Any], unknown: NDArray[np.bool_] | None = None) -> pa.Array:
    """Numbers, shape (n,), with the type that they have; null where they are ``unknown``."""
    known = None if unknown is None or not unknown.any() else np.packbits(~unknown, bitorder="little")
    buffers = [None if known is None else pa.py_buffer(known), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(_kind(values.dtype), len(values), buffers)


@lru_cache
def _kind(dtype: np.dtype[Any]) -> pa.DataType:
    return pa.from_numpy_dtype(dtype)


@lru_cache  # asking Arrow takes longer than all the rest of a short column
def _dtype(kind: pa.DataType) -> np.dtype[Any] | None:
    return np.dtype(kind.to_pandas_dtype()) if pa.types.is_integer(kind) else None


def _of_objects(values: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    """None where it takes more than putting whole numbers one behind the other."""
    dtype = _dtype(kind)
    if dtype is None or not all(type(value) is int for value in values):
        return None
    try:
        return of_numbers(np.array(values, dtype))
    except OverflowError:
        return None


def _of_texts(values: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    if not all(type(value) is str for value in values):
        return None
    texts = [value.encode() for value in values]
    data = b"".join(texts)
    if len(data) >= 1 << 31:
        return None
    offsets = np.fromiter(accumulate(map(len, texts), initial=0), np.int32, len(texts) + 1)
    return pa.Array.from_buffers(kind, len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _of_lists(values: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    if not all(type(value) is list for value in values):
        return None
    inner = _of_objects(list(chain.from_iterable(values)), kind.value_type)
    if inner is None:
        return None
    offsets = np.fromiter(accumulate(map(len, values), initial=0), np.int32, len(values) + 1)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(offsets)], children=[inner])
