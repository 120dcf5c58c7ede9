"""The table of DAMON's files beside what Linux 7.3.4 has, as it was read in the guest lab."""

from __future__ import annotations

from pathlib import Path

from pydamon.spec.damon_files import FILES, READ_ONLY, Words, pattern

# Of a context with one of everything: ``FILE=VALUE`` as the kernel made it; ``OK|NO FILE WORD`` for what was tried.
LINES = Path(__file__).with_name("damon-7.3.txt").read_text().splitlines()
RELEASE = (7, 3)
WITH_REGIONS = "schemes/*/tried_regions/*/"  # those come with the first results
OURS = {
    file.path: file
    for file in FILES
    if (file.since is None or file.since <= RELEASE) and not file.path.startswith(WITH_REGIONS)
}


def known(words: Words) -> set[str]:
    return {word for word, since in words.items() if since is None or since <= RELEASE}


def test_the_files_are_the_kernels() -> None:
    theirs = {pattern(line.partition("=")[0]) for line in LINES if "=" in line}
    assert OURS.keys() == theirs


def test_new_files_hold_what_the_kernels_hold() -> None:
    theirs = {pattern(file): value for file, sign, value in (line.partition("=") for line in LINES) if sign}
    made = {path for path, file in OURS.items() if file.kind == "count"}  # one of each was made
    settings = {path: file.first_text for path, file in OURS.items() if file.mode != READ_ONLY and path not in made}
    assert settings == {path: theirs[path] for path in settings}


def test_words_are_taken_as_the_table_says() -> None:
    tried: dict[str, dict[str, set[str]]] = {}
    for answer, path, word in (line.split() for line in LINES if line.startswith(("OK ", "NO "))):
        tried.setdefault(pattern(path), {"OK": set(), "NO": set()})[answer].add(word)
    assert len(tried) == 5
    for path, answers in tried.items():
        assert known(OURS[path].words) == answers["OK"], path
        assert not known(OURS[path].words) & answers["NO"], path
