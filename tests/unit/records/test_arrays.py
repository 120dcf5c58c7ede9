"""Arrow's arrays from bytes are those that ``pa.array`` makes, and are made without it where it would import more."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydamon.records import arrays

KINDS = {
    "uint8": st.integers(0, 2**8 - 1), "int32": st.integers(-(2**31), 2**31 - 1), "uint32": st.integers(0, 2**32 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1), "uint64": st.integers(0, 2**64 - 1), "string": st.text(),
}  # fmt: skip


@st.composite
def columns(draw: st.DrawFn) -> tuple[list[Any], pa.DataType]:
    name = draw(st.sampled_from(sorted(KINDS)))
    kind, values = getattr(pa, name)(), KINDS[name]
    if name != "string" and draw(st.booleans()):
        kind, values = pa.list_(kind), st.lists(values, max_size=4)
    if draw(st.booleans()):
        values = st.one_of(st.none(), values)
    return draw(st.lists(values, max_size=8)), kind


@settings(deadline=None)  # what it is compared with imports pandas at the first call
@given(columns())
def test_lists_of_objects(column: tuple[list[Any], pa.DataType]) -> None:
    values, kind = column
    found = arrays.array(values, kind)
    found.validate(full=True)
    assert found.equals(pa.array(values, kind))


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans()), max_size=20), st.booleans())
def test_numbers_with_unknown_ones(pairs: list[tuple[int, bool]], apart: bool) -> None:
    values = np.array([value for value, _ in pairs] * (1 + apart), np.uint32)[:: 1 + apart]
    unknown = np.array([flag for _, flag in pairs] * (1 + apart), np.bool_)[:: 1 + apart]
    found = arrays.of_numbers(values, unknown)
    found.validate(full=True)
    assert found.equals(pa.array(values, mask=unknown))
    assert arrays.array(values, pa.uint32()).equals(pa.array(values))
    assert arrays.array(values, pa.uint64()).equals(pa.array(values, pa.uint64()))


@pytest.mark.parametrize(
    ("values", "kind"),
    [([-1], pa.uint32()), (["x"], pa.int64()), ([2**64], pa.uint64()), ([1], pa.string()),
     ([["x"]], pa.list_(pa.uint32())), ([1], pa.list_(pa.uint32()))],
)  # fmt: skip
def test_what_cannot_be_is_refused_as_before(values: list[Any], kind: pa.DataType) -> None:
    with pytest.raises((pa.ArrowException, OverflowError, TypeError)) as before:
        pa.array(values, kind)
    with pytest.raises(type(before.value)):
        arrays.array(values, kind)


@pytest.mark.usefixtures("processes")
def test_neither_masked_arrays_nor_pandas_are_looked_for() -> None:
    code = (
        "import sys; sys.modules['pandas'] = sys.modules['numpy.ma'] = None\n"
        "import numpy as np, pyarrow as pa; from pydamon.records import arrays\n"
        "arrays.of_numbers(np.arange(5), np.arange(5) > 2)\n"
        "for values, kind in (([1], pa.uint32()), (['a'], pa.string()), ([[1], []], pa.list_(pa.uint32())),\n"
        "    (np.arange(3), pa.int64())): arrays.array(values, kind)\n"
        "try: pa.array(np.arange(3))\n"
        "except (ImportError, AttributeError): sys.exit(0)\n"
        "sys.exit('pa.array imports nothing: the module has become needless')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
