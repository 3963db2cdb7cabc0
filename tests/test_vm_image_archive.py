"""An archive is asked, believed only as far as its sums and signature go, and left when it is another."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive_kit import Server, deb, publish, serving
from command import Home
from org.errors import EnvironmentProblem, ExitCode
from org.sandbox.vm.image import archive
from org.sandbox.vm.image.fetch import opener
from org.sandbox.vm.image.sources import Source

DIRECT = opener()
SIGNED = Path(__file__).parent / "data" / "archive"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving() as running:
        publish(running, {"a": deb(tmp_path, "a", {})})
        yield running


@pytest.fixture
def unsigned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host without the program that checks signatures."""
    monkeypatch.setenv("PATH", str(tmp_path))


def at(server: Server, keyring: str = "") -> list[Source]:
    return [Source(server.address, ("bookworm",), ("main",), keyring)]


@pytest.mark.usefixtures("unsigned")
async def test_packages_are_read_and_it_is_said_that_nobody_signed(server: Server) -> None:
    found, signed = await archive.read(at(server), "amd64", DIRECT)
    assert [(package.name, package.base) for package in found] == [("a", server.address)]
    assert not signed


@pytest.mark.usefixtures("unsigned")
async def test_updates_come_from_wherever_they_are(server: Server, tmp_path: Path) -> None:
    with serving() as other:
        publish(other, {"b": deb(tmp_path, "b", {})}, "bookworm-security")
        found, _ = await archive.read([*at(other), *at(server)], "amd64", DIRECT)
    assert {package.name: package.base for package in found} == {"a": server.address, "b": other.address}


@pytest.mark.usefixtures("unsigned")
async def test_an_index_by_its_sum_is_asked_for_where_the_archive_keeps_one(
    server: Server, tmp_path: Path
) -> None:
    publish(server, {"a": deb(tmp_path, "a", {})}, **{"Acquire-By-Hash": "yes"})
    folder = "dists/bookworm/main/binary-amd64"
    index = server.files.pop(f"{folder}/Packages.xz")
    release = server.files["dists/bookworm/InRelease"].decode()
    digest = release.partition("SHA256:\n ")[2].split()[0]
    server.files[f"{folder}/by-hash/SHA256/{digest}"] = index
    found, _ = await archive.read(at(server), "amd64", DIRECT)
    assert len(found) == 1


@pytest.mark.usefixtures("unsigned")
@pytest.mark.parametrize("more", [{"Origin": "Somebody"}, {"Codename": "trixie"}])
async def test_another_archive_is_passed_over(server: Server, tmp_path: Path, more: dict[str, str]) -> None:
    publish(server, {"a": deb(tmp_path, "a", {})}, **more)
    with pytest.raises(EnvironmentProblem) as caught:
        await archive.read(at(server), "amd64", DIRECT)
    assert "bookworm" in caught.value.message and "--mirror" in caught.value.hint


async def test_why_an_archive_could_not_be_asked_is_said() -> None:
    with pytest.raises(EnvironmentProblem, match=r"bookworm`: cannot fetch http://127\.0\.0\.1:1/"):
        await archive.read([Source("http://127.0.0.1:1", ("bookworm",), ("main",))], "amd64", DIRECT)


@pytest.mark.usefixtures("unsigned")
async def test_an_index_that_was_changed_is_refused(server: Server) -> None:
    server.files["dists/bookworm/main/binary-amd64/Packages.xz"] = lzma.compress(b"")
    with pytest.raises(EnvironmentProblem, match="not what the archive's Release promises"):
        await archive.read(at(server), "amd64", DIRECT)


@pytest.mark.usefixtures("unsigned")
async def test_an_architecture_that_is_not_there_is_named(server: Server) -> None:
    with pytest.raises(EnvironmentProblem, match="`arm64`"):
        await archive.read(at(server), "arm64", DIRECT)


@pytest.fixture
def signed(server: Server) -> Server:
    """An archive that was signed once, with a key that nobody has any more."""
    server.files["dists/bookworm/InRelease"] = (SIGNED / "InRelease").read_bytes()
    server.files["dists/bookworm/main/binary-amd64/Packages.xz"] = (SIGNED / "Packages.xz").read_bytes()
    assert shutil.which("gpgv"), "`apt-get install gpgv`"
    return server


async def test_a_signature_is_checked_with_the_archives_own_keys(signed: Server) -> None:
    found, checked = await archive.read(at(signed, str(SIGNED / "keys.gpg")), "amd64", DIRECT)
    assert checked
    assert [package.name for package in found] == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"Codename: bookworm\n", b"Codename: bookworm\nMore: x\n"),
        lambda text: text.partition(b"-----BEGIN PGP SIGNATURE")[0],
        lambda text: text.partition(b"\n\n")[2],
    ],
)
async def test_a_signature_that_is_not_right_is_an_error(
    signed: Server, change: Callable[[bytes], bytes]
) -> None:
    changed = change(signed.files["dists/bookworm/InRelease"])
    assert changed != signed.files["dists/bookworm/InRelease"]
    signed.files["dists/bookworm/InRelease"] = changed
    with pytest.raises(EnvironmentProblem, match=r"the signature of .* is not right"):
        await archive.read(at(signed, str(SIGNED / "keys.gpg")), "amd64", DIRECT)


async def test_a_key_of_somebody_else_is_an_error(signed: Server, tmp_path: Path) -> None:
    (tmp_path / "keys.gpg").write_bytes(b"")
    with pytest.raises(EnvironmentProblem, match=r"the signature of .* is not right"):
        await archive.read(at(signed, str(tmp_path / "keys.gpg")), "amd64", DIRECT)


async def test_what_stands_before_the_signed_part_is_not_believed(signed: Server) -> None:
    text = signed.files["dists/bookworm/InRelease"]
    forged = b"Origin: Debian\nCodename: bookworm\nSHA256:\n 00 1 main/binary-amd64/Packages.xz\n\n"
    signed.files["dists/bookworm/InRelease"] = forged + text
    found, checked = await archive.read(at(signed, str(SIGNED / "keys.gpg")), "amd64", DIRECT)
    assert checked and len(found) == 1


async def test_the_proxies_of_apt_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "apt-config"
    said = 'APT "";\nAcquire::http::Proxy "http://proxy:3142";\nAcquire::https::Proxy "DIRECT";'
    script.write_text(f"#!/bin/sh\ncat <<'E'\n{said}\nE\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert await archive.proxies() == {"http": "http://proxy:3142"}
    monkeypatch.setenv("http_proxy", "http://mine:1")
    assert await archive.proxies() == {"http": "http://mine:1"}
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert await archive.proxies() == {}


def test_the_settings_or_a_flag_name_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.user_settings('[vm]\nmirror = "http://127.0.0.1:1/set/"')
    done = home.run("vm", "up")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "cannot fetch http://127.0.0.1:1/set-security/" in done.stderr
    assert "http://127.0.0.1:1/given-" in home.run("vm", "up", "--mirror", "http://127.0.0.1:1/given").stderr
    (home.project / "org.toml").write_text('[vm]\nmirror = "http://127.0.0.1:1/theirs"')
    done = home.run("vm", "import", "tree.tar")
    assert "ignored, not trusted: vm.mirror" in done.stderr
    assert "cannot fetch http://127.0.0.1:1/set-" in done.stderr
