"""A directory that looks like a memory cgroup (version 2): its files can be written as the kernel's can."""

from __future__ import annotations

from pathlib import Path

CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total=15437\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4905\n"


def fake_cgroup(root: Path, name: str = "web", *, current_bytes: int = 100 << 20) -> Path:
    """Below ``root``, which stands for a mount of cgroup v2."""
    path = root / name
    path.mkdir(parents=True)
    texts = {
        "memory.current": str(current_bytes),
        "memory.swap.current": "0",
        "memory.swap.max": "max",
        "memory.min": "0",
        "memory.low": "0",
        "memory.reclaim": "",
        "memory.stat": "anon 1\npgmajfault 7\nworkingset_refault_anon 3\nworkingset_refault_file 4\n",
        "memory.pressure": CALM,
        "io.pressure": CALM,
    }
    for file, text in texts.items():
        (path / file).write_text(text + "\n")
    return path
