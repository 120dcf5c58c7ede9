"""Reading perf's CPU samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydamon.records import cpu_samples
from pydamon.records.cpu_samples import CpuSampleReader


def _read(path: Path, text: str | bytes) -> tuple[list[tuple[int, int, str]], CpuSampleReader]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    reader = CpuSampleReader(str(path))
    found = []
    for piece in reader.pieces():
        columns = (piece.time_ns.tolist(), piece.pid.tolist(), piece.symbol.tolist())
        found += [(time_ns, pid, reader.names[number]) for time_ns, pid, number in zip(*columns, strict=True)]
    return found, reader


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Lines that perf 6.1 printed, some shortened.
        ("bash 20956 25887.042028:    5000000 cpu-clock: \n\t  85580 dlopen@GLIBC_2.2.5+0x80 (/lib/libc.so.6)\n\n",
         (25887_042028000, -1, "dlopen@GLIBC_2.2.5 (libc.so.6)")),
        ("    bash 20956/20956 25887.042028: cpu-clock:      7fd37b4c4580 _dl_relocate (/usr/lib/ld-linux.so.2)\n",
         (25887_042028000, 20956, "_dl_relocate (ld-linux.so.2)")),
        ("python3 22301 26025.790103:    2000000 cpu-clock:  ffffffff82200809 spin+0x19 ([kernel.kallsyms])\n",
         (26025_790103000, -1, "spin ([kernel.kallsyms])")),
        ("a b c 1/2 [003] 5.000000001: cycles:u:  401136 operator new(unsigned long)+0x6 (/a b/x)\n",
         (5_000000001, 1, "operator new(unsigned long) (x)")),
    ],
)  # fmt: skip
def test_forms(tmp_path: Path, text: str, expected: tuple[int, int, str]) -> None:
    found, reader = _read(tmp_path / "p", text)
    assert found == [expected]
    assert (reader.counts.accesses, reader.counts.garbage) == (1, 0)


def test_of_a_call_chain_the_first_counts(tmp_path: Path) -> None:
    chain = "x 1/1 5.0: c: \n\t 10 f+0x1 (l)\n\t 20 g+0x1 (l)\n\n"
    assert [name for *_, name in _read(tmp_path / "p", chain * 3)[0]] == ["f (l)"] * 3


def test_lines_of_no_sample_are_counted(tmp_path: Path) -> None:
    found, reader = _read(tmp_path / "p", "# header\nwhat is this\nx 1/1 5.0: c: 10 f (l)\n")
    assert (len(found), reader.counts.garbage, reader.counts.garbage_example) == (1, 1, "what is this")


def test_many_symbols_become_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_samples, "_MOST_SYMBOLS", 4)
    text = "".join(f"x 1/1 5.0: c: 10 f{n} (l)\n" for n in range(5))
    assert [name for *_, name in _read(tmp_path / "p", text)[0]] == ["f0 (l)", "f1 (l)"] + ["[others]"] * 3


def test_hostile_lines_take_no_time_and_no_memory(tmp_path: Path) -> None:
    """Each of these would take minutes with a pattern that tries all partitions."""
    for line in (b" " * 60_000 + b"x", b"x " * 30_000, b"1/1 " * 15_000, b"y 1/1 5.0: " * 5_000, b"\t" + b"a" * 60_000):
        found, _ = _read(tmp_path / "p", line + b"\n")
        assert len(found) <= 1
    found, reader = _read(tmp_path / "p", b"z" * 3_000_000 + b"\nx 1/1 5.0: c: 10 f (l)\n")
    assert (len(found), reader.counts.garbage) == (1, 1)
