"""How the kernel reads numbers and switches: the examples are its own documents' and tests' (lib/test-kstrtox.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.damonfs import formats


def outcome(parse: Callable[[bytes], object], data: bytes) -> Any:
    try:
        return parse(data)
    except OSError as error:
        assert error.errno is not None
        return errno.errorcode[error.errno]


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            (b"0", 0),
            (b"42\n", 42),
            (b"+42", 42),
            (b"0x1F", 31),
            (b"0X1f\n", 31),
            (b"010", 8),
            (b"18446744073709551615", 2**64 - 1),
            (b"42\0junk", 42),
            (b"000000000000000000000000000000000000000000000000000000000000000000000000000000000000001", 1),
        ],
    )
    def test_an_unsigned_long_is_read_in_its_base(self, text: bytes, value: int) -> None:
        assert formats.parse_ulong(text) == value

    @pytest.mark.parametrize(
        "text", [b"", b"\n", b" 1", b"1 ", b"1\n\n", b"-1", b"++1", b"0x", b"08", b"1a", b"ten", b"+-1", b"0b1", b"1_0"]
    )
    def test_what_is_no_number_is_EINVAL(self, text: bytes) -> None:
        assert outcome(formats.parse_ulong, text) == "EINVAL"

    def test_what_does_not_fit_is_ERANGE(self) -> None:
        assert outcome(formats.parse_ulong, b"18446744073709551616") == "ERANGE"
        assert outcome(formats.parse_ulong, b"9" * 4096) == "ERANGE"
        assert outcome(formats.parse_uint, b"4294967296") == "ERANGE"
        assert outcome(formats.parse_int, b"2147483648") == "ERANGE"
        assert outcome(formats.parse_int, b"-2147483649") == "ERANGE"

    def test_an_int_has_a_sign(self) -> None:
        assert formats.parse_int(b"-2147483648") == -(2**31)
        assert formats.parse_int(b"-0x10\n") == -16
        assert outcome(formats.parse_int, b"--1") == "EINVAL"

    @given(st.binary(max_size=80))
    def test_any_bytes_are_a_number_that_fits_or_an_error(self, data: bytes) -> None:
        for parse, low, high in (
            (formats.parse_ulong, 0, 2**64 - 1),
            (formats.parse_uint, 0, 2**32 - 1),
            (formats.parse_int, -(2**31), 2**31 - 1),
        ):
            found = outcome(parse, data)
            assert found in ("EINVAL", "ERANGE") or low <= found <= high

    @given(st.integers(0, 2**64 - 1))
    def test_what_is_shown_can_be_written(self, value: int) -> None:
        assert formats.parse_ulong(f"{value}\n".encode()) == value


class TestSwitches:
    @pytest.mark.parametrize("text", [b"Y", b"y\n", b"1", b"on", b"On\n", b"true"])
    def test_on(self, text: bytes) -> None:
        assert formats.parse_bool(text) is True

    @pytest.mark.parametrize("text", [b"N", b"n\n", b"0", b"off", b"OF", b"false"])
    def test_off(self, text: bytes) -> None:
        assert formats.parse_bool(text) is False

    @pytest.mark.parametrize("text", [b"", b"\n", b"o", b"x", b"2"])
    def test_neither(self, text: bytes) -> None:
        assert outcome(formats.parse_bool, text) == "EINVAL"


def test_a_word_may_end_with_one_newline() -> None:
    assert formats.parse_word(b"stat\n") == "stat"
    assert formats.parse_word(b"stat\n\n") == "stat\n"
