"""An archive of packages on loopback, made up on the spot."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from org.sandbox.vm.image.fetch import Wanted

DATA = bytes(range(256)) * 2000
CONTROL = "Package: {name}\nVersion: 1\nArchitecture: amd64\n{more}Description: x\n y\n"


def tar_of(files: Mapping[str, bytes | str], modes: Mapping[str, int] | None = None) -> bytes:
    """A tar: bytes make a file, a text that begins with `->` a symbolic link, with `=>` a hard link,
    an empty text a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode = (modes or {}).get(name, 0o644)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                continue
            info.type = {"->": tarfile.SYMTYPE, "=>": tarfile.LNKTYPE, "": tarfile.DIRTYPE}[content[:2]]
            info.linkname = content[2:]
            tar.addfile(info)
    return out.getvalue()


def deb(
    folder: Path,
    name: str,
    files: Mapping[str, bytes | str],
    control: Mapping[str, bytes] | None = None,
    more: str = "",
) -> Path:
    """A package `name` with these files."""
    scripts: dict[str, bytes | str] = {"./control": CONTROL.format(name=name, more=more).encode()}
    scripts |= {f"./{key}": value for key, value in (control or {}).items()}
    parts_ = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(tar_of(scripts, {"./postinst": 0o755})),
        "data.tar.xz": lzma.compress(tar_of(files)),
    }
    path = folder / f"{name}.deb"
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for key, data in parts_.items():
            file.write(f"{key:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode())
            file.write(data + b"\n" * (len(data) % 2))
    return path


@dataclass
class Server:
    """Serves `files`. `cut` ends the first answers after so many bytes; `ranges` says whether parts
    may be asked for; `asked` keeps the paths and ranges."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)

    def wanted(self, name: str, path: Path, data: bytes = DATA) -> Wanted:
        return Wanted(f"{self.address}/{name}", len(data), hashlib.sha256(data).hexdigest(), path)


@contextmanager
def serving() -> Iterator[Server]:
    serves = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            serves.asked.append((self.path, asked))
            data = serves.files.get(self.path[1:])
            if data is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and serves.ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = start + serves.cut.pop(0) if serves.cut else len(data)
            self.wfile.write(data[start:end])

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = False
    serves.address = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    yield serves
    listening.shutdown()
    thread.join()
    listening.server_close()


def publish(server: Server, debs: Mapping[str, Path], suite: str = "bookworm", **more: str) -> None:
    """Let `server` be an archive with these packages; `more` are fields of its Release."""
    index = ""
    for name, path in debs.items():
        data = path.read_bytes()
        server.files[f"pool/{name}.deb"] = data
        index += f"Package: {name}\nVersion: 1\nFilename: pool/{name}.deb\nSize: {len(data)}\n"
        index += f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n"
    packed = lzma.compress(index.encode())
    path_ = f"dists/{suite}/main/binary-amd64/Packages.xz"
    server.files[path_] = packed
    fields = {"Origin": "Debian", "Codename": suite} | more
    release = "".join(f"{key}: {value}\n" for key, value in fields.items())
    release += f"SHA256:\n {hashlib.sha256(packed).hexdigest()} {len(packed)} main/binary-amd64/Packages.xz\n"
    text = (
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{release}-----BEGIN PGP SIGNATURE-----\n\nxx\n"
    )
    server.files[f"dists/{suite}/InRelease"] = text.encode()
