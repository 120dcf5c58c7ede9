"""Flags of mappings, of this very process."""

from __future__ import annotations

import ctypes
import mmap
import os

from pydamon.linux import vm_flags
from pydamon.linux.process import Process
from pydamon.linux.vm_flags import flagged_mappings

SECOND = 10**9


def test_locked_and_shared_mappings_are_told() -> None:
    size = 64 << 10
    locked = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    shared = mmap.mmap(-1, size)
    at, other = (ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in (locked, shared))
    assert ctypes.CDLL(None).mlock(ctypes.c_void_p(at), ctypes.c_size_t(size)) == 0
    found = list(flagged_mappings(os.getpid(), budget_ns=10 * SECOND))
    assert [one.start for one in found] == sorted(one.start for one in found)
    (mine,) = (one for one in found if one.start <= at < one.end)
    (its,) = (one for one in found if one.start <= other < one.end)
    assert vm_flags.LOCKED in mine.flags
    assert vm_flags.SHARED not in mine.flags
    assert vm_flags.SHARED in its.flags
    assert vm_flags.LOCKED not in its.flags


def test_mappings_of_files_are_told() -> None:
    found = {one.start: one for one in flagged_mappings(os.getpid(), budget_ns=10 * SECOND)}
    named = {mapping.start: mapping.inode > 0 for mapping in Process(os.getpid()).mappings()}
    both = found.keys() & named.keys()
    assert {found[start].of_file for start in both} == {True, False}
    assert sum(found[start].of_file != named[start] for start in both) <= 1  # it may have changed in between


def test_the_time_it_may_take_is_bounded() -> None:
    assert len(list(flagged_mappings(os.getpid(), budget_ns=0))) == 1


def test_nobody_has_no_mappings() -> None:
    assert list(flagged_mappings(2**22 + 1, budget_ns=SECOND)) == []  # beyond the largest pid
