"""A Debian archive as it is reached: its `Release` checked, its indices read."""

from __future__ import annotations

import asyncio
import hashlib
import lzma
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.request import OpenerDirector

from org.errors import EnvironmentProblem
from org.sandbox.vm.image.fetch import fetch_text
from org.sandbox.vm.image.index import Package, packages, paragraphs, sums
from org.sandbox.vm.image.recipe import SUITE
from org.sandbox.vm.image.sources import Source, candidates, deb822, one_line

_APT = Path("/etc/apt")
_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
# Each suite with what its archive's Release must call it; the first is necessary.
_SUITES = (SUITE, f"{SUITE}-updates", f"{SUITE}-security")
_PROXY = re.compile(r'^Acquire::(https?)::Proxy "([^"]+)";', re.MULTILINE | re.IGNORECASE)
_NO_ARCHIVE = "name one: `--mirror URL` or `[vm] mirror`, an address below which `dists/` is"


def sources(mirror: str | None, apt: Path = _APT) -> Sequence[Source]:
    """The archives to ask: the given one and its neighbour with the security updates, by custom of the
    same name with `-security`; else those of this machine's apt.

    Raises `EnvironmentProblem` when there is none.
    """
    if mirror:
        base = mirror.rstrip("/")
        return [Source(uri, (SUITE,), ("main",)) for uri in (base, f"{base}-security")]
    found: list[Source] = []
    for path in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]:
        if path.is_file():
            found += one_line(path.read_text(errors="replace"))
    for path in sorted(apt.glob("sources.list.d/*.sources")):
        found += deb822(path.read_text(errors="replace"))
    likely = candidates(found, SUITE)
    if not likely:
        raise EnvironmentProblem("this machine's apt names no archive of Debian packages", _NO_ARCHIVE)
    return likely


async def proxies() -> dict[str, str]:
    """The proxies that this machine's apt is told to use, by scheme; those of the environment go before."""
    apt_config = shutil.which("apt-config")
    if apt_config is None:
        return {}
    process = await asyncio.create_subprocess_exec(
        *(apt_config, "dump"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    said, _ = await process.communicate()
    named = _PROXY.findall(said.decode(errors="replace"))
    return {scheme: url for scheme, url in named if url != "DIRECT"} | urllib.request.getproxies()


async def read(archives: Sequence[Source], arch: str, opener: OpenerDirector) -> tuple[list[Package], bool]:
    """All packages of the release for `arch`, and whether every signature was checked.

    Each of the release's suites comes from the first archive that has it; updates that none of them has
    are done without. Signatures are checked when `gpgv` and a keyring are there; a wrong one is an error
    always. Raises `EnvironmentProblem`.
    """
    found: list[Package] = []
    signed = True
    for suite in _SUITES:
        failed = ""
        for source in archives:
            try:
                raw = await asyncio.to_thread(fetch_text, f"{source.uri}/dists/{suite}/InRelease", opener)
            except EnvironmentProblem as error:
                failed = f": {error.message}"
                continue
            release = await _release(source, suite, raw)
            if release is not None:
                text, checked = release
                signed = signed and checked
                found += await asyncio.to_thread(_packages, source.uri, suite, text, arch, opener)
                break
        else:
            if suite == SUITE:
                raise EnvironmentProblem(f"no archive here has Debian `{SUITE}`{failed}", _NO_ARCHIVE)
    return found, signed


async def _release(source: Source, suite: str, raw: bytes) -> tuple[str, bool] | None:
    """The text of the archive's `Release`, and whether its signature was checked; None when it is not
    of that suite of Debian's."""
    text = _unwrapped(raw.decode("utf-8", "replace"))
    fields = next(paragraphs(text), {})
    if fields.get("Origin") != "Debian" or fields.get("Codename") != suite:
        return None
    keyring = Path(source.keyring) if source.keyring else next((k for k in _KEYRINGS if k.exists()), None)
    gpgv = shutil.which("gpgv")
    if gpgv is None or keyring is None:
        return text, False
    return await _verified(gpgv, keyring, raw, f"{source.uri}/dists/{suite}/InRelease"), True


async def _verified(gpgv: str, keyring: Path, raw: bytes, name: str) -> str:
    """The signed part of a clear-signed text. Raises `EnvironmentProblem`."""
    with tempfile.TemporaryDirectory(prefix="org-") as folder:
        given, signed = Path(folder, "given"), Path(folder, "signed")
        given.write_bytes(raw)
        process = await asyncio.create_subprocess_exec(
            *(gpgv, "--keyring", str(keyring), "--output", str(signed), str(given)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode != 0:
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            raise EnvironmentProblem(
                f"the signature of {name} is not right: {' '.join(last)}",
                "check the clock and the keyring, or name another `--mirror`",
            )
        return signed.read_text()


def _unwrapped(text: str) -> str:
    """A clear-signed text without its wrapping."""
    head, _, rest = text.partition("\n\n")
    if not head.startswith("-----BEGIN PGP SIGNED MESSAGE-----"):
        return text
    return rest.partition("-----BEGIN PGP SIGNATURE-----")[0]


def _packages(base: str, suite: str, release: str, arch: str, opener: OpenerDirector) -> list[Package]:
    known = sums(release)
    path = f"main/binary-{arch}/Packages.xz"
    entry = known.get(path) or known.get("updates/" + path)
    if entry is None:
        raise EnvironmentProblem(f"{base} has no packages of `{suite}` for `{arch}`")
    sha256, _ = entry
    folder = f"{base}/dists/{suite}/main/binary-{arch}"
    by_hash = next(paragraphs(release)).get("Acquire-By-Hash") == "yes"
    data = fetch_text(f"{folder}/by-hash/SHA256/{sha256}" if by_hash else f"{folder}/Packages.xz", opener)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise EnvironmentProblem(
            f"not what the archive's Release promises: {folder}/Packages.xz", "try again"
        )
    return list(packages(lzma.decompress(data).decode(), base))
