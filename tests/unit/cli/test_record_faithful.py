"""``--faithful``: from the option to the spec, the engines and the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pydamon.cli import main
from pydamon.engines.sim import SimEngine
from pydamon.errors import RequestError
from pydamon.records.reader import RecordReader
from pydamon.service.protocol import Tune
from pydamon.service.tuning import tuned
from pydamon.spec import Context, Target, from_builtins
from pydamon.spec.forms.damo_write import damo_spec
from pydamon.workload.builtin import load

SIM = ("record", "--ops", "sim", "--workload", "stairs", "--duration", "2s")


@pytest.mark.parametrize("faithful", [True, False])
def test_the_record_says_which_it_was(faithful: bool, tmp_path: Path) -> None:
    out = tmp_path / "run.damon"
    assert main([*SIM, "-o", str(out), *["--faithful"] * faithful]) == 0
    with RecordReader(out) as reader:
        assert reader.info.spec["kdamonds"][0]["contexts"][0]["faithful"] is faithful


def test_the_plan_says_which_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIM, "--explain"]) == 0
    assert "Regions end where large mappings end" in capsys.readouterr().out
    assert main([*SIM, "--explain", "--faithful"]) == 0
    assert "Sample as the kernel's DAMON does" in capsys.readouterr().out


def test_where_nothing_is_learnt_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--ops", "reported", "--source", "lackey:/dev/null", "--faithful", "--explain"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "pydamon: --faithful: is for --ops vaddr, fvaddr, paddr or sim: others always are"
    ]


def test_the_engine_does_what_the_spec_says() -> None:
    for faithful in (True, False):
        context: dict[str, Any] = {"ops": "sim", "targets": [{}], "faithful": faithful}
        spec = from_builtins({"kdamonds": [{"contexts": [context]}]})
        assert SimEngine(spec, load("stairs")).kdamond.faithful is faithful


def test_it_cannot_change_while_it_runs() -> None:
    asked = Context(targets=(Target(pid=7),))
    spec = {"kdamonds": [{"contexts": [{"targets": [{"pid": 7}], "faithful": True}]}]}
    with pytest.raises(RequestError, match="is true; it cannot be changed while it runs") as caught:
        tuned(Tune(spec=spec), asked, asked, primitive="bpf", nr_targets=1)
    assert caught.value.where == "kdamonds[0].contexts[0].faithful"


def test_damo_is_told_that_it_has_no_such_field() -> None:
    context = {"targets": [{"pid": 7}], "faithful": True}
    said: list[str] = []
    written = damo_spec(from_builtins({"kdamonds": [{"contexts": [context]}]}), said.append)
    assert "faithful" not in written["kdamonds"][0]["contexts"][0]
    assert said == ["kdamonds[0].contexts[0].faithful: damo has no such field; the kernel's DAMON always is"]
