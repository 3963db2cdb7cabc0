"""An archive's index: versions in order, what packages need, what is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.errors import EnvironmentProblem
from org.sandbox.vm.image.index import Package, closure, compare, newest, packages, paragraphs, sums

VERSIONS = st.from_regex(r"([0-9]:)?[0-9][a-z0-9.+~]{0,6}(-[a-z0-9.+~]{1,4})?", fullmatch=True)


def package(
    name: str, *depends: str, provides: str = "", needed: bool = False, version: str = "1"
) -> Package:
    return Package(
        name,
        version,
        f"pool/{name}.deb",
        1,
        "0" * 64,
        "http://archive",
        tuple(tuple(part.split("|")) for part in depends),
        tuple(provides.split()),
        needed,
    )


def names(chosen: list[Package]) -> list[str]:
    return [package.name for package in chosen]


def test_versions_are_in_the_archives_order() -> None:
    ordered = [
        "1.0~rc1",
        "1.0~rc1-2",
        "1.0",
        "1.0-1",
        "1.0-1+deb12u1",
        "1.0-1.1",
        "1.0a",
        "1.0+dfsg",
        "1.2",
        "1.10",
    ]
    ordered += ["1:0.1", "2:0"]
    for older, newer in itertools.combinations(ordered, 2):
        assert compare(older, newer) < 0 < compare(newer, older), (older, newer)


@pytest.mark.parametrize(("one", "other"), [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.01", "1.1")])
def test_versions_may_be_equal_in_other_words(one: str, other: str) -> None:
    assert compare(one, other) == 0


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_of_versions_is_an_order(one: str, two: str, three: str) -> None:
    assert compare(one, one) == 0
    assert (compare(one, two) > 0) == (compare(two, one) < 0)
    if compare(one, two) <= 0 and compare(two, three) <= 0:
        assert compare(one, three) <= 0


def test_paragraphs_keep_continued_lines_and_skip_comments() -> None:
    text = "A: 1\nB: x\n y\n# no\n\tz\n\n \nA: 2\n"
    assert list(paragraphs(text)) == [{"A": "1", "B": "x\n y\n\tz"}, {"A": "2"}]


def test_a_package_is_read_with_all_that_matters() -> None:
    text = (
        "Package: git\nVersion: 1:2\nPriority: optional\nPre-Depends: dpkg (>= 1.2)\n"
        "Depends: libc6 (>= 2.34), perl:any | awk (<< 2)\nProvides: vcs (= 1), scm\n"
        "Filename: pool/git.deb\nSize: 10\nSHA256: AB\n\n"
        "Package: dash\nVersion: 1\nEssential: yes\nFilename: d\nSize: 1\nSHA256: cd\n"
    )
    git, dash = packages(text, "http://archive")
    assert git == Package(
        "git",
        "1:2",
        "pool/git.deb",
        10,
        "ab",
        "http://archive",
        (("dpkg",), ("libc6",), ("perl", "awk")),
        ("vcs", "scm"),
    )
    assert dash.needed


@pytest.mark.parametrize(
    "text", ["Package: a\nVersion: 1", "Package: a\nVersion: 1\nFilename: f\nSize: x\nSHA256: 0"]
)
def test_a_package_without_a_field_is_refused(text: str) -> None:
    with pytest.raises(EnvironmentProblem, match="without a usable field"):
        list(packages(text, ""))


def test_the_newest_version_wins_and_of_equals_the_first() -> None:
    first, second = package("a", version="2"), package("a", "b", version="2")
    assert newest([package("a", version="1.9"), first, second])["a"] is first


def test_everything_needed_comes_along() -> None:
    index = newest(
        [
            package("base", "lib", needed=True),
            package("lib"),
            package("git", "lib", "perl"),
            package("perl"),
            package("other"),
        ]
    )
    assert names(closure(index, ["git"])) == ["base", "git", "lib", "perl"]


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ([package("one"), package("two")], ["one", "top"]),  # the first of several
        ([package("two")], ["top", "two"]),  # the first that exists
        ([package("real", provides="one")], ["real", "top"]),  # who provides it
    ],
)
def test_of_alternatives_one_is_taken(there: list[Package], chosen: list[str]) -> None:
    assert names(closure(newest([package("top", "one|two"), *there]), ["top"])) == chosen


def test_an_alternative_that_is_there_already_is_enough() -> None:
    index = newest([package("two"), package("top", "one|two"), package("one")])
    assert names(closure(index, ["two", "top"])) == ["top", "two"]


def test_circles_and_unwanted_ones_end() -> None:
    index = newest([package("a", "b"), package("b", "a", "docs")])
    assert names(closure(index, ["a"], without=["docs"])) == ["a", "b"]


def test_what_nobody_has_is_named() -> None:
    with pytest.raises(EnvironmentProblem, match=r"no package `x \| y`"):
        closure(newest([package("a", "x|y")]), ["a"])


def test_a_releases_sums_are_read() -> None:
    release = "Suite: s\nMD5Sum:\n 00 1 a\nSHA256:\n AA 12 main/Packages.xz\n bb 3 other\nTail: x\n"
    assert sums(release) == {"main/Packages.xz": ("aa", 12), "other": ("bb", 3)}
