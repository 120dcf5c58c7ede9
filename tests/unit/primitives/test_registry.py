"""The two tables of primitives fit together, and what every primitive owes to who asks through it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
from tests.helpers.waiting import GENEROUS_S
from tests.unit.primitives import minimal

from pydamon.engines.base import Choice
from pydamon.engines.user import choose
from pydamon.engines.user.engine import UserEngine
from pydamon.errors import MachineError, RequestError
from pydamon.linux.process import Process
from pydamon.primitives import registry
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Primitive, Shared
from pydamon.primitives.registry import Binding
from pydamon.spec import Context, Intervals, Kdamond, Spec, Target
from pydamon.spec import primitives as facts
from pydamon.spec.primitives import CHOICES, PRIMITIVES, PrimitiveFacts, PrimitiveName

NAMES = CHOICES[1:]
PAGES, PAGE = 2048, 4096
# Writes to all pages of a mapping, again and again. Says where it is.
CHILD = (
    "import ctypes, mmap\n"
    f"area = mmap.mmap(-1, {PAGES * PAGE}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
    "area.madvise(mmap.MADV_NOHUGEPAGE)\n"
    f"area[::{PAGE}] = bytes({PAGES})\n"
    "print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)\n"
    f"while True: area[::{PAGE}] = bytes({PAGES})\n"
)


@pytest.fixture
def child(processes: None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process and where its mapping begins."""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield process, int(process.stdout.readline())
        process.kill()


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more primitive than there are: `minimal`, added by what a row is in each of the tables."""
    row = PrimitiveFacts("minimal", "what is in memory counts as accessed")  # type: ignore[arg-type]
    monkeypatch.setattr(facts, "PRIMITIVES", (*PRIMITIVES, row))
    monkeypatch.setattr(choose, "PRIMITIVES", facts.PRIMITIVES)
    monkeypatch.setitem(registry.BINDINGS, "minimal", Binding(minimal.__name__))


def test_each_name_has_a_row_of_facts_and_a_module() -> None:
    assert get_args(PrimitiveName) == CHOICES
    assert list(registry.BINDINGS) == [*NAMES, "minimal"]
    for name in NAMES:
        assert set(registry.BINDINGS[name].parts) <= set(NAMES)
        obstacle = registry.obstacle(name)
        assert obstacle is None or obstacle.strip()
        try:
            opener = registry.opener(name, shared := Shared())
        except MachineError:
            assert obstacle is not None
            continue
        assert callable(opener)
        shared.close()


def test_a_primitive_of_parts_needs_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise MachineError("is not there", where="/proc/self/pagemap")

    monkeypatch.setitem(registry.BINDINGS, "both", Binding("none", parts=("minimal", "smaps")))
    assert registry.obstacle("both") == registry.obstacle("smaps")
    monkeypatch.setattr(minimal, "probe", refuse)
    assert registry.obstacle("both") == "/proc/self/pagemap: is not there"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(RequestError, match="no primitive; there are bpf, "):
        facts.facts("gpu")


def test_auto_takes_the_first_that_can_be_used_and_says_why_not_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    usable = {"smaps", "soft-dirty", "minimal"}
    monkeypatch.setattr(registry, "obstacle", lambda name: None if name in usable else f"no {name} here")
    best = "bpf, which is better, cannot be used: no bpf here"
    assert choose.choose("auto") == Choice("smaps", f"coarser, one answer per mapping; {best}")
    usable.remove("smaps")  # soft-dirty is only for who asks for it
    assert choose.choose("auto") == Choice("minimal", f"page-granular; {best}")
    usable.add("bpf")
    assert choose.choose("auto") == Choice("bpf", "page-granular and usable here")
    usable.clear()
    with pytest.raises(MachineError, match=r"bpf: no bpf here; .*smaps: no smaps here; minimal: no minimal here"):
        choose.choose("auto")


class TestContract:
    """What `primitives.base.Primitive` promises, of each that can be used here."""

    @pytest.fixture(params=[*NAMES, "minimal"])
    def opened(self, request: pytest.FixtureRequest, child: tuple[object, int]) -> Iterator[tuple[Primitive, int]]:
        name, (popen, start) = request.param, child
        if (obstacle := registry.obstacle(name)) is not None:
            pytest.skip(f"{name}: {obstacle}")
        shared, process = Shared(), Process(popen.pid)  # type: ignore[attr-defined]
        primitive = registry.opener(name, shared)(process)
        assert primitive.name == name
        yield primitive, start
        primitive.close()
        shared.close()
        process.close()

    def test_as_many_answers_as_questions(self, opened: tuple[Primitive, int]) -> None:
        primitive, start = opened
        for count in (0, 1, 7):
            addresses = start + PAGE * np.arange(count, dtype=np.uint64)
            flags = primitive.prepare(addresses)
            assert (flags.shape, flags.dtype) == ((count,), np.dtype(bool))
            answers = primitive.check()
            assert (answers.shape, answers.dtype) == ((count,), np.dtype(np.uint8))
            assert set(answers.tolist()) <= {ACCESSED, NOT_ACCESSED, UNKNOWN}
        assert primitive.cost.checks == 8
        assert primitive.cost.check_ns > 0

    def test_what_is_used_is_seen_and_what_is_not_mapped_is_not(self, opened: tuple[Primitive, int]) -> None:
        primitive, start = opened
        hot, none = start, 4096  # page 1 is never mapped
        seen, wrong = 0, 0
        # smaps answers by the share of the mapping that was accessed, the others may meet the child without a CPU.
        give_up = time.monotonic() + GENEROUS_S
        while time.monotonic() < give_up:
            primitive.prepare(np.array([hot, none], np.uint64))
            answers = primitive.check()
            seen += answers[0] == ACCESSED
            wrong += answers[1] == ACCESSED
            if seen:
                break
        assert seen
        assert not wrong

    def test_pages_are_exchanged_in_a_window(self, opened: tuple[Primitive, int]) -> None:
        primitive, start = opened
        addresses = np.array([4096, 4096], np.uint64)
        kept = addresses.copy()
        primitive.prepare(addresses)
        flags = primitive.replace(np.array([1]), np.array([start], np.uint64))
        assert (flags.shape, flags.dtype) == ((1,), np.dtype(bool))
        assert len(primitive.check()) == 2
        assert (addresses == kept).all()

    def test_it_outlives_the_process_and_knows_nothing_then(
        self, opened: tuple[Primitive, int], child: tuple[subprocess.Popen[bytes], int]
    ) -> None:
        primitive, start = opened
        primitive.prepare(np.array([start], np.uint64))
        child[0].kill()
        child[0].wait()
        primitive.update()
        primitive.prepare(np.array([start], np.uint64))
        assert primitive.check().tolist() == [UNKNOWN]
        primitive.close()


def test_the_least_primitive_can_be_monitored_with(child: tuple[subprocess.Popen[bytes], int]) -> None:
    popen, _ = child
    context = Context(
        primitive="minimal",  # type: ignore[arg-type]
        targets=(Target(pid=popen.pid),),
        intervals=Intervals(sample_us=1_000, aggr_us=20_000),
    )
    engine = UserEngine(Spec(kdamonds=(Kdamond(contexts=(context,)),)))
    assert engine.choice == Choice("minimal", "asked for")
    for number, (snapshot,) in enumerate(engine.monitor()):
        if number == 5:
            engine.kdamond.stop()
    assert snapshot.nr_accesses.max() > 0
    assert engine.cost().checks > 0


@pytest.mark.parametrize("arguments", ["--help", "record --help", "mount --help"])
def test_help_names_them_without_loading_any(processes: None, arguments: str) -> None:
    code = (
        "import sys; from pydamon.cli import main; main(sys.argv[1:])\n"
        "sys.exit(' '.join(name for name in sys.modules if name.startswith(('pydamon.primitives', 'numpy'))) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments.split()], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("soft-dirty" in done.stdout) == (arguments != "--help")
