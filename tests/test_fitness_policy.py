"""What no candidate may do, by its files alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from ops_kit import SETTINGS, Shop
from org.ops.fitness import policy, rules
from org.ops.fitness.policy import findings, is_protected


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def found(
    shop: Shop, files: Mapping[str, str], *, allow: bool = False, protected: tuple[str, ...] = ()
) -> list[str]:
    shop.change(files)
    gate = shop.gate()
    return findings(shop.repo, gate.main, gate.merge, protected, allow_protected=allow)


def test_an_ordinary_change_is_fine(shop: Shop) -> None:
    assert found(shop, {"menu.txt": "coffee\n", "new/deep/file.py": "x = 1\n", "ä ö.txt": "x"}) == []


@pytest.mark.parametrize(
    ("path", "protected", "expected"),
    [
        ("fitness.toml", ("fitness.toml",), True),
        ("a/fitness.toml", ("fitness.toml",), False),
        ("src/ops/git.py", ("src/ops/",), True),
        ("src/opsx.py", ("src/ops/",), False),
        ("tests/test_ops_git.py", ("tests/test_ops_*",), True),
        ("tests/test_room.py", ("tests/test_ops_*",), False),
        ("x", (), False),
    ],
)
def test_what_is_protected(path: str, protected: tuple[str, ...], expected: bool) -> None:
    assert is_protected(path, protected) is expected


def test_what_is_protected_needs_a_word(shop: Shop) -> None:
    shop.save("rescue", {"ops/rollback.py": "x"})
    shop.edit({"other": "1"})
    (shop.layout.candidate / "ops" / "rollback.py").unlink()
    (line,) = found(shop, {}, protected=("ops/",))
    assert "ops/rollback.py" in line
    assert "--allow-protected" in line
    assert found(shop, {"more": "1"}, protected=("ops/",), allow=True) == []


def test_how_it_is_started_is_protected_and_the_rest_of_the_file_is_not(shop: Shop) -> None:
    assert found(shop, {"org.toml": SETTINGS + '[room]\nname = "x"\n'}) == []
    (line,) = found(shop, {"org.toml": SETTINGS.replace("shop", "shop --fast")})
    assert "[generation] in org.toml" in line
    (line,) = found(shop, {"org.toml": "not TOML"})
    assert "[generation] in org.toml" in line


@pytest.mark.parametrize(
    ("target", "leads_out"),
    [
        ("menu.txt", False),
        ("deep/../menu.txt", False),
        ("../outside", True),
        ("deep/../../outside", True),
        ("/etc/passwd", True),
    ],
)
def test_links_stay_inside(shop: Shop, target: str, leads_out: bool) -> None:
    folder = shop.edit({"x": "1"})
    os.symlink(target, folder / "link")
    assert found(shop, {}) == (["a link that leads out: link"] if leads_out else [])


def test_a_link_in_a_folder_may_lead_up_to_the_root(shop: Shop) -> None:
    folder = shop.edit({"deep/x": "1"})
    os.symlink("../menu.txt", folder / "deep" / "link")
    os.symlink("../../menu.txt", folder / "deep" / "out")
    assert found(shop, {}) == ["a link that leads out: deep/out"]


def test_marks_of_a_conflict(shop: Shop) -> None:
    left = "<<<<<<< main\na\n=======\nb\n>>>>>>> cand\n"
    assert found(shop, {"left.txt": left, "title.txt": "Title\n=======\n"}) == [
        "an unfinished merge: left.txt has marks of a conflict"
    ]


def test_marks_that_were_there_before_are_none_of_its(shop: Shop) -> None:
    shop.save("old", {"old.txt": "<<<<<<< main\n=======\n>>>>>>> x\n"})
    assert found(shop, {"new.txt": "1"}) == []


def test_large_files(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "MOST_BYTES", 2 << 20)
    (line,) = found(shop, {"large": "x" * (3 << 20), "small": "x"})
    assert line == "large has 3 MiB; 2 are allowed"


def test_names_that_drive_a_terminal_and_other_repositories(shop: Shop) -> None:
    shop.change({"a\x1b[2Jb": "1"})
    gate = shop.gate()
    repo = shop.repo
    entries = repo.run("ls-tree", gate.merge) + f"\n160000 commit {gate.main}\tinner"
    tree = repo.run("mktree", input=entries + "\n")
    merge = repo.run("commit-tree", tree, "-p", gate.main, input="x\n")
    assert findings(repo, gate.main, merge, (), allow_protected=False) == [
        'a name that cannot be shown: "a\\u001b[2Jb"',
        "another repository inside: inner",
    ]


def test_what_rescues_org_is_protected() -> None:
    """A candidate of org's own that breaks its rollback does not get as far as being started."""
    root = Path(__file__).parent.parent
    protected = rules.read((root / "org.toml").read_text(encoding="utf-8")).protected
    rescue = [*(root / "src/org/ops").rglob("*.py"), root / "src/org/errors.py", root / "src/org/__main__.py"]
    rescue += [*(root / "tests").glob("test_ops_*.py"), root / "org.toml", root / "fitness.toml"]
    assert [path for path in rescue if not is_protected(str(path.relative_to(root)), protected)] == []
    assert not is_protected("src/org/chat/room.py", protected)
