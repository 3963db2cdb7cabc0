"""Which archives this machine's apt names, in either of its formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from org.errors import EnvironmentProblem
from org.sandbox.vm.image.archive import sources
from org.sandbox.vm.image.sources import Source, candidates, deb822, one_line


def test_lines_are_read() -> None:
    text = """
# deb http://commented/ bookworm main
deb http://mirror/debian/ bookworm main contrib  # the main one
deb [arch=amd64 signed-by=/k.gpg] https://other/debian bookworm-updates main
deb-src http://mirror/debian bookworm main
"""
    assert list(one_line(text)) == [
        Source("http://mirror/debian", ("bookworm",), ("main", "contrib")),
        Source("https://other/debian", ("bookworm-updates",), ("main",), "/k.gpg"),
    ]


def test_paragraphs_are_read() -> None:
    text = """\
Types: deb deb-src
# a comment
URIs: http://one/debian http://two/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /keys.gpg

Types: deb
Enabled: no
URIs: http://off
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source
Suites: bookworm
Components: main

Types: deb
URIs: http://inline
Suites: x
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
"""
    suites = ("bookworm", "bookworm-updates")
    assert list(deb822(text)) == [
        Source("http://one/debian", suites, ("main",), "/keys.gpg"),
        Source("http://two/debian", suites, ("main",), "/keys.gpg"),
        Source("http://inline", ("x",), ("main",)),
    ]


def test_likely_archives_come_first_and_each_once() -> None:
    found = [
        Source("http://vendor", ("stable",), ("main",)),
        Source("cdrom:x", ("bookworm",), ("main",)),
        Source("http://wrong", ("bookworm",), ("contrib",)),
        Source("http://debian", ("bookworm",), ("main",)),
        Source("http://debian", ("bookworm-updates",), ("main",)),
    ]
    assert [source.uri for source in candidates(found, "bookworm")] == ["http://debian", "http://vendor"]


def test_all_files_of_apt_are_asked(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://a/debian bookworm main\n")
    more = tmp_path / "sources.list.d"
    more.mkdir()
    (more / "b.list").write_text("deb http://b/debian bookworm main\n")
    (more / "c.sources").write_text("Types: deb\nURIs: http://c/debian\nSuites: bookworm\nComponents: main\n")
    (more / "d.save").write_text("deb http://d/debian bookworm main\n")
    assert [source.uri for source in sources(None, tmp_path)] == [
        "http://a/debian",
        "http://b/debian",
        "http://c/debian",
    ]


def test_a_given_archive_comes_with_its_security_updates_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://a/debian bookworm main\n")
    assert [source.uri for source in sources("http://mine/debian/", tmp_path)] == [
        "http://mine/debian",
        "http://mine/debian-security",
    ]


def test_without_any_the_error_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        sources(None, tmp_path)
    assert "--mirror" in caught.value.hint
