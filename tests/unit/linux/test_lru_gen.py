"""The file lru_gen, as Documentation/admin-guide/mm/multigen_lru.rst describes it, and as nobody should write it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pydamon.errors import MachineError, RequestError
from pydamon.linux import lru_gen
from pydamon.linux.lru_gen import Generation, Part
from pydamon.linux.texts import MISREAD

PAGE = 4096
# memcg  memcg_id  memcg_path / node  node_id / gen_nr  age_in_ms  nr_anon_pages  nr_file_pages, oldest first
TEXT = """\
memcg     1 /
 node     0
        715     182340          0      10243 
        716      60120       1200       8200 
        717       9000       3400        512 
        718       1100       5000        100 
memcg    37 /system.slice/my app.service
 node     0
          0     300500      25600          0 
          1      31000       2560        256 
 node     1
          0     300500        100          0x
          1      31000        200          0 
"""  # noqa: W291


def test_a_generation_lies_between_its_beginning_and_that_of_the_next_one() -> None:
    root, first, second = lru_gen.parse(TEXT)
    assert root == Part(
        "/",
        0,
        (
            Generation(715, 60120, None, 0, 10243 * PAGE),
            Generation(716, 9000, 60120, 1200 * PAGE, 8200 * PAGE),
            Generation(717, 1100, 9000, 3400 * PAGE, 512 * PAGE),
            Generation(718, 0, 1100, 5000 * PAGE, 100 * PAGE),
        ),
    )
    assert (first.path, first.node) == ("/system.slice/my app.service", 0)
    assert (second.path, second.node) == ("/system.slice/my app.service", 1)
    assert second.generations[0].anon_bytes == 100 * PAGE


def test_without_cgroups_all_is_the_roots() -> None:
    (part,) = lru_gen.parse("memcg     0 \n node     0\n          3          5          1          2 \n")
    assert part == Part("/", 0, (Generation(3, 0, None, PAGE, 2 * PAGE),))


def test_names_that_look_like_other_lines_are_names() -> None:
    (part,) = lru_gen.parse("memcg 5 / node 3\n node 1\n 1 2 3 4\n")
    assert (part.path, part.node) == ("/ node 3", 1)


def test_what_is_not_understood_is_left_out_and_said() -> None:
    before = MISREAD.counts["lru_gen"]
    text = (
        " 1 2 3 4\n node 7\n 1 2 3 4\nmemcg 1 /a\n 1 2 3 4\n node 0\n 1 -2 3 4\n 9 2 3 4\n99999999999999999999 1 1 1\n"
    )
    (part,) = lru_gen.parse(text)
    assert part == Part("/a", 0, (Generation(9, 0, None, 3 * PAGE, 4 * PAGE),))
    assert MISREAD.counts["lru_gen"] == before + 5


def test_ages_that_go_the_wrong_way_still_are_ranges() -> None:
    (part,) = lru_gen.parse("memcg 1 /\n node 0\n 1 10 1 1\n 2 500 1 1\n 3 20 1 1\n")
    assert [(g.low_ms, g.high_ms) for g in part.generations] == [(500, None), (20, 500), (0, 20)]


def test_any_lines_at_all_are_survived() -> None:
    rng = random.Random(3)
    lines = TEXT.split("\n")
    for _ in range(300):
        text = "\n".join(rng.sample(lines, rng.randrange(len(lines))))
        cut = text[: rng.randrange(len(text) + 1)]
        for part in lru_gen.parse(cut):
            assert all(g.high_ms is None or g.low_ms <= g.high_ms for g in part.generations)
            assert part.generations


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("root:x:0:0\n")
    with pytest.raises(RequestError, match="has no generations in it"):
        lru_gen.read(tmp_path / "other")
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        lru_gen.read(tmp_path / "missing")
    with pytest.raises(RequestError, match="cannot be read: Is a directory"):
        lru_gen.read(tmp_path)
    with pytest.raises(RequestError, match="has more than 64 MiB"):
        lru_gen.read(Path("/dev/zero"))
    (tmp_path / "empty").write_text("")
    with pytest.raises(RequestError, match="is empty: it holds no generations"):
        lru_gen.read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("state", "mounted", "why"),
    [
        (None, True, "this kernel has no generations"),
        ("0x0000\n", True, "is switched off"),
        ("0x0006\n", True, "is switched off"),
        ("junk", True, "is not understood"),
        ("0x0007\n", False, "mount -t debugfs none /sys/kernel/debug"),
        ("0x0007\n", True, None),
    ],
)
def test_what_is_missing_is_said(
    state: str | None, mounted: bool, why: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled = tmp_path / "enabled"
    if state is not None:
        enabled.write_text(state)
    (tmp_path / "lru_gen").write_text(TEXT)
    monkeypatch.setattr(lru_gen, "_ENABLED", enabled)
    monkeypatch.setattr(lru_gen, "mounts", lambda kind: [tmp_path] if mounted else [])
    if why is None:
        lru_gen.probe()
        assert lru_gen.find() == tmp_path / "lru_gen"
        return
    with pytest.raises(MachineError) as refused:
        lru_gen.probe()
    assert why in str(refused.value)
