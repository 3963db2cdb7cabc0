"""Git by its command line, in a folder of our own, with everything off that a repository could have run.

Nothing of the caller's environment reaches it but PATH; no configuration is read but the folder's own, no
hook, file monitor, replacement or graft is followed, nothing is signed, no protocol but local files is
spoken, and standard input is never a terminal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from org.errors import EnvironmentProblem

LEAST = (2, 38)
"""The first Git that merges without a working tree."""

CONFIG = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
[receive]
\thideRefs = refs/
"""
"""All that a repository of ours is configured to: what a promote has moved outlives a power cut, and nobody
pushes into it, since a promote is the only way in."""

# Stronger than what stands in the folder's own configuration, should anybody have written there.
_OFF = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.commitGraph": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "diff.ignoreSubmodules": "all",
    "advice.graftFileDeprecated": "false",
}

# What old commits and trees are full of, and nobody can mend: how somebody is named, when it was, how a mode
# is written. What Git could trip over (`.git` as a name, modules that lead out, trees out of order) is an
# error as ever.
_OLD = (
    *("badDate", "badDateOverflow", "badEmail", "badName", "badTimezone", "missingEmail"),
    *("missingNameBeforeEmail", "missingSpaceBeforeDate", "missingSpaceBeforeEmail", "multipleAuthors"),
    *("nulInCommit", "zeroPaddedDate", "zeroPaddedFilemode"),
)
_OFF |= {f"fsck.{name}": "warn" for name in _OLD}
_STRICT = "--strict=" + ",".join(f"{name}=warn" for name in _OLD)
_OPTIONS = tuple(word for name, value in _OFF.items() for word in ("-c", f"{name}={value}"))

_NAME, _EMAIL = "org", "org@localhost"
COMMITTER = f"{_NAME} <{_EMAIL}>"
"""Who commits promotes and rollbacks, and nothing of a candidate's."""

_ENV = {
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": "/dev/null",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "file",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ADVICE": "0",
    "GIT_AUTHOR_NAME": _NAME,
    "GIT_AUTHOR_EMAIL": _EMAIL,
    "GIT_COMMITTER_NAME": _NAME,
    "GIT_COMMITTER_EMAIL": _EMAIL,
}

# What Git reads from a folder besides its configuration, and what none of ours has. `commondir` names another
# folder whose configuration counts; in `info` are attributes, grafts, and what is ignored.
_FOREIGN = (
    *("commondir", "config.worktree", "info", "shallow"),
    *("objects/info/alternates", "objects/info/http-alternates"),
)

_FULL = re.compile("No space left on device|Out of diskspace|Disk quota exceeded")
_LITTLE = 2**20


class GitFailed(EnvironmentProblem):
    """A Git command ended with an exit code that nobody expected; `code` is it."""

    def __init__(self, message: str, hint: str = "", *, code: int = 1) -> None:
        super().__init__(message, hint)
        self.code = code


@dataclass(frozen=True, slots=True)
class Git:
    """Commands on one repository of ours. `lock` is the open file of the lock, which they inherit."""

    folder: Path
    lock: int = -1

    def run(self, *words: str, input: str = "", env: Mapping[str, str] = {}) -> str:
        """Standard output, without the last line's end. Raises `GitFailed`, and `EnvironmentProblem` for
        a full disk."""
        return self.ask(*words, input=input, env=env)[1].rstrip("\n")

    def ask(
        self, *words: str, input: str = "", env: Mapping[str, str] = {}, fine: tuple[int, ...] = (0,)
    ) -> tuple[int, str]:
        """Exit code and standard output as it is. Raises `GitFailed` for a code that is not `fine`."""
        with self._start(
            words, env, subprocess.PIPE, subprocess.PIPE if input else subprocess.DEVNULL
        ) as process:
            output, said = process.communicate(os.fsencode(input) if input else None)
        self._check(words, process.returncode, said, fine)
        return process.returncode, os.fsdecode(output)

    def bring(self, objects: Path, commit: str, known: Sequence[str], env: Mapping[str, str] = {}) -> None:
        """Take in a commit with all that it needs from somebody else's folder of objects, once checked.

        That folder is only read: no configuration, reference, hook or graft of where it comes from counts.
        `known` are commits that are here already. Raises `GitFailed` for objects that are damaged or missing.
        """
        packing = ("pack-objects", "--revs", "--thin", "--delta-base-offset", "--stdout", "--quiet")
        checking = ("index-pack", "--stdin", "--fix-thin", _STRICT)
        theirs = {**seeing(objects), **env}
        wanted = "".join(f"{line}\n" for line in (commit, *(f"^{old}" for old in known)))
        with tempfile.TemporaryFile(dir=self.folder) as pack:
            with self._start(packing, theirs, pack) as process:
                _, said = process.communicate(wanted.encode())
            self._check(packing, process.returncode, said)
            pack.seek(0)
            with self._start(checking, {}, subprocess.PIPE, pack) as process:
                _, said = process.communicate()
            self._check(checking, process.returncode, said)

    def _start(
        self,
        words: Sequence[str],
        env: Mapping[str, str],
        output: int | IO[bytes],
        input: int | IO[bytes] = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                ["git", *_OPTIONS, *words],
                stdin=input,
                stdout=output,
                stderr=subprocess.PIPE,
                env=clean_environment() | {"GIT_DIR": str(self.folder), **env},
                cwd="/",
                pass_fds=(self.lock,) if self.lock >= 0 else (),
            )
        except FileNotFoundError:
            raise _missing() from None

    def _check(self, words: Sequence[str], code: int, said: bytes, fine: tuple[int, ...] = (0,)) -> None:
        if code not in fine:
            why = said.decode(errors="replace").strip().replace("\n", "; ") or f"exit code {code}"
            if self._is_full(why):
                raise EnvironmentProblem(
                    f"the disk is full: `git {words[0]}` could not write in {self.folder}",
                    "make room, then `org recover`",
                )
            raise GitFailed(f"`git {words[0]}` failed in {self.folder}: {why}", code=code)

    def _is_full(self, why: str) -> bool:
        """Whether it failed for want of room; of some files it says no more than that it could not write."""
        if _FULL.search(why):
            return True
        if "write" not in why or not self.folder.is_dir():
            return False
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize < _LITTLE

    def create(self) -> None:
        """Make the repository, empty."""
        self.run("init", "--quiet", "--bare", "--template=", "--initial-branch=main")
        self.restore()

    def restore(self) -> None:
        """Undo what others wrote into the folder that Git would act upon."""
        config = self.folder / "config"
        if config.is_symlink() or not config.is_file() or config.read_text("utf-8", "replace") != CONFIG:
            config.unlink(missing_ok=True)
            config.write_text(CONFIG, encoding="utf-8")
        for name in _FOREIGN:
            path = self.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def seeing(objects: Path) -> dict[str, str]:
    """The environment in which Git reads the objects of that folder too."""
    quoted = str(objects).replace("\\", "\\\\").replace('"', '\\"')
    return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"'}


def clean_environment() -> dict[str, str]:
    """What a Git command of ours sees of the world."""
    return _ENV | {"PATH": os.environ.get("PATH", os.defpath)}


def check_version() -> None:
    """Raises `EnvironmentProblem` when Git is missing or too old."""
    try:
        said = subprocess.run(
            ["git", "--version"], capture_output=True, text=True, env=clean_environment(), check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise _missing() from None
    found = re.search(r"(\d+)\.(\d+)", said.stdout)
    if found is None or (int(found[1]), int(found[2])) < LEAST:
        raise EnvironmentProblem(
            f"Git is too old: {said.stdout.strip()}", f"install {LEAST[0]}.{LEAST[1]} or newer"
        )


def _missing() -> EnvironmentProblem:
    return EnvironmentProblem("there is no `git` here", "install it: `apt-get install git`")
