"""Errors know where they are."""

from __future__ import annotations

import pytest

from pydamon.errors import MachineError, PydamonError, RequestError, located


@pytest.mark.parametrize(
    ("places", "where", "whole"),
    [
        ((("kdamonds[0]", "."), ("contexts[0]", "."), ("schemes", ".")), "[2].action",
         "kdamonds[0].contexts[0].schemes[2].action"),
        ((("schemes[0]", "."),), None, "schemes[0]"),
        ((("policy.yaml", ": "), ("schemes[1]", ".")), "quotas.sz_bytes", "policy.yaml: schemes[1].quotas.sz_bytes"),
        ((("policy.yaml", ": "),), "[0]", "policy.yaml: [0]"),
        ((("", "."),), "action", "action"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [PydamonError, RequestError, MachineError])
def test_an_error_names_the_whole_path_of_what_it_is_about(
    kind: type[PydamonError], places: tuple[tuple[str, str], ...], where: str | None, whole: str
) -> None:
    def check(left: tuple[tuple[str, str], ...]) -> None:
        if not left:
            raise kind("is wrong", where=where)
        with located(*left[0]):
            check(left[1:])

    with pytest.raises(kind) as caught:
        check(places)
    assert type(caught.value) is kind
    assert (caught.value.where, caught.value.message, str(caught.value)) == (whole, "is wrong", f"{whole}: is wrong")


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ValueError, match=r"^other$"), located("schemes[0]"):
        raise ValueError("other")
