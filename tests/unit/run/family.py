"""A parent with three workers that share memory; prints the parent's pid. Together they use 24 of 44 MiB."""

from __future__ import annotations

import mmap
import os
import signal
import time

MIB = 1 << 20
PAGE = 4096


def filled(size: int, flags: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, size, PAGE):
        memory[at] = 1
    return memory


def play(own: mmap.mmap, inherited: mmap.mmap, shared: mmap.mmap, worker: int) -> None:
    while os.getppid() > 1:
        for at in range(0, len(own), PAGE):
            own[at] = 2
        if worker == 0:
            for at in range(0, 4 * MIB, PAGE):
                inherited[at]
        for at in range(0, 8 * MIB, PAGE):
            shared[at]
        time.sleep(0.2)


def main() -> None:
    inherited = filled(16 * MIB, mmap.MAP_PRIVATE)
    shared = filled(16 * MIB, mmap.MAP_SHARED)
    for worker in range(3):
        if not os.fork():
            play(filled(4 * MIB, mmap.MAP_PRIVATE), inherited, shared, worker)
            os._exit(0)
    print(os.getpid(), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
