"""What a mapping of a process is called, for people: ``/proc/PID/maps`` names some as only the kernel knows them."""

from __future__ import annotations

from pydamon.linux.process import Mapping

ANONYMOUS = "anon"
SHARED_ANONYMOUS = "shared anonymous memory"
_OF_SHARED = "/dev/zero (deleted)"  # what the kernel backs MAP_SHARED | MAP_ANONYMOUS with

# memfd_create, System V, POSIX; of other files on a tmpfs the names do not tell
_SHARED = (_OF_SHARED, "/memfd:", "/SYSV", "/dev/shm/", "[anon_shmem:")


def is_shared_memory(mapping: Mapping) -> bool:
    """Whether it is a file of the kernel's own (tmpfs): what is in it has no place but memory and swap."""
    return mapping.name.startswith(_SHARED)


def mapping_name(mapping: Mapping) -> str:
    """A short name: the file's without directories, ``[heap]`` and the like as they are, ``anon`` for none."""
    name = mapping.name
    if not name:
        return ANONYMOUS
    if name == _OF_SHARED:
        return SHARED_ANONYMOUS
    if name.startswith("/"):
        deleted = name.endswith(" (deleted)")
        name = name.removesuffix(" (deleted)").rstrip("/").rpartition("/")[2] or name
        return f"{name} (deleted)" if deleted else name
    return name


def full_name(mapping: Mapping) -> str:
    """The same with the directories of a file."""
    return mapping.name if mapping.name and mapping.name != _OF_SHARED else mapping_name(mapping)
