"""Running `org` as a person does: as a process, and in a terminal of its own."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ORG = [sys.executable, "-m", "org"]
DEADLINE_S = 60.0
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Home:
    """A person's home for `org`: settings, state and cache below `folder`, and the working folder."""

    def __init__(self, folder: Path, base_url: str = "", model: str = "") -> None:
        self.folder = folder
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.env: dict[str, str] = keep | {
            "HOME": str(folder),
            "USER": "ada",
            "TERM": "xterm",
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        if base_url:
            self.env["ORG_BASE"] = base_url
        if model:
            self.env["ORG_MODEL"] = model

    @property
    def rooms(self) -> Path:
        return self.folder / "state" / "org" / "rooms"

    def roster(self, roster: Mapping[str, tuple[str, str]], extra: str = "") -> None:
        """Write an `org.toml` with participants: id -> (profile, the name of its script)."""
        lines = [extra]
        for name, (profile, script) in roster.items():
            lines.append(f'[[participant]]\nid = "{name}"\nprofile = "{profile}"\nsystem = "[[{script}]]"')
        (self.project / "org.toml").write_text("\n".join(lines), encoding="utf-8")

    def user_settings(self, text: str) -> None:
        path = self.folder / "config" / "org" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`org WORDS`, without a terminal."""
        return subprocess.run(
            [*ORG, *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.env,
            cwd=self.project,
            timeout=DEADLINE_S,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`org WORDS` in the background, without a terminal; its output comes through pipes."""
        return subprocess.Popen(
            [*ORG, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            cwd=self.project,
        )

    def terminal(self, *words: str) -> Terminal:
        return Terminal([*ORG, *words], self.env, self.project)


@contextmanager
def served(home: Home, *words: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """(process, port, token) of a server on a free port."""
    process = home.start("serve", "--port", "0", *words)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"org serves at https?://127\.0\.0\.1:(\d+)/#token=([\w-]{43})\n", line)
        assert found, line + process.stderr.read()
        yield process, int(found[1]), found[2]
    finally:
        process.kill()
        process.communicate()


class Terminal:
    """A program in a pseudo-terminal: type into it, and wait for what it shows."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self._fd, inner = os.openpty()
        # `setsid --ctty` makes the new terminal the controlling one, so that Ctrl-C is a signal.
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "env", "--default-signal=INT", *argv],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=dict(env),
            cwd=cwd,
        )
        os.close(inner)
        self.raw = ""
        """All that it wrote, with the sequences that colour and move."""
        self._screen = ""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str, timeout_s: float = DEADLINE_S) -> str:
        """Wait until `text` is shown after all that was waited for; returns what came up to it."""
        deadline = time.monotonic() + timeout_s
        while (found := self._screen.find(text, self._seen)) < 0:
            if time.monotonic() > deadline or not self._read(min(1.0, timeout_s)):
                raise AssertionError(f"{text!r} never came; the terminal shows:\n{self._screen}")
        before = self._screen[self._seen : found]
        self._seen = found + len(text)
        return before

    def take_in(self) -> None:
        """Take in what is shown within a moment, if anything."""
        if self._process.poll() is not None:
            raise AssertionError(f"the program has ended; the terminal shows:\n{self._screen}")
        self._read(0.05)

    def exit_code(self) -> int:
        """Wait until the program has ended."""
        while self._read(1.0):
            pass
        return self._process.wait(DEADLINE_S)

    @property
    def screen(self) -> str:
        return self._screen

    def _read(self, timeout_s: float) -> bool:
        """Take in output; False once the program has closed the terminal."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._fd, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # how Linux reports the end of a pseudo-terminal
            return False
        self.raw += data.decode(errors="replace")
        self._screen += _ESCAPE.sub("", data.decode(errors="replace"))
        return bool(data)
