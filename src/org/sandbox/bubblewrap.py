"""Commands behind bubblewrap's walls: own namespaces, a read-only system, one writable folder.

Covered: network, other processes, files, privileges, environment, and the use of memory, processes
and time, see `Limits`. As root a cgroup counts processes and memory of the whole family; for an
ordinary user the kernel counts processes within the user namespace and memory per process only. Not
covered: many files may together fill the disk that holds the workspace, and the kernel itself is
shared, `seccomp` takes only a few calls away.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from org.errors import SandboxGone
from org.ports import Command, ExecResult
from org.sandbox import files, process
from org.sandbox.cgroup import cgroup
from org.sandbox.limits import Limits, limited, within
from org.sandbox.seccomp import program

WORKSPACE = "/workspace"  # where a command finds its workspace, whatever it is called outside
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": WORKSPACE,
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
# Bubblewrap's own environment can be read from inside (`/proc/1/environ`), so it gets none but this.
_OUTER = {"PATH": ENVIRONMENT["PATH"]}
_UID = 1000
_PROC_SYS = Path("/proc/sys")
_ACCOUNTS = {
    "/etc/passwd": f"job:x:{_UID}:{_UID}::{WORKSPACE}:/bin/sh\n",
    "/etc/group": f"job:x:{_UID}:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
}
# Nothing here tells of the machine's people or keys: those of /etc/ssl/private are left out.
_ETC = (
    "alternatives",
    "ca-certificates.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki/tls/certs",
    "ssl/certs",
    "ssl/openssl.cnf",
)
_SIGNALS = {int(number) for number in signal.valid_signals()}
_SYSCTLS = (
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
)


@dataclass(frozen=True, slots=True)
class _Status:
    """What bubblewrap reports on a descriptor that the command never has.

    `child` is the first process of the sandbox by its number outside, `namespace` the inode of its
    PID namespace, `exit_code` what the command ended with; each 0 or None until it is known.
    """

    child: int = 0
    namespace: int = 0
    exit_code: int | None = None


class Bubblewrap:
    """A `Sandbox` around a folder. Each command gets walls of its own; they share the workspace."""

    def __init__(self, workspace: Path, limits: Limits | None = None) -> None:
        self._workspace = workspace.absolute()
        self._limits = within(limits or Limits())
        self._stale: list[Path] = []  # cgroups that could not be removed yet
        self._sh = os.path.realpath("/bin/sh")

    async def check(self) -> None:
        """Start the smallest command. Raises `SandboxGone` with what to type when that fails."""
        await self.exec(Command(["true"], timeout_s=30.0))

    async def exec(self, command: Command, on_output: Callable[[bytes], None] | None = None) -> ExecResult:
        bwrap = shutil.which("bwrap", path=_OUTER["PATH"])
        if bwrap is None:
            raise SandboxGone("`bwrap` is not installed", "`apt-get install bubblewrap`")
        mark = secrets.token_hex(8)
        with ExitStack() as stack:
            status_fd, status_write = os.pipe()
            stack.callback(os.close, status_fd)
            writing = stack.enter_context(ExitStack())
            writing.callback(os.close, status_write)
            accounts = {path: _given(stack, text.encode()) for path, text in _ACCOUNTS.items()}
            refusing = program(os.uname().machine)
            filters = [_given(stack, refusing)] if refusing else []
            groups = stack.enter_context(cgroup(self._limits, self._stale)) if os.geteuid() == 0 else []
            argv = _inside(groups, [bwrap, *self._argv(command, status_write, accounts, filters)])
            try:
                ended = await process.run(
                    command,
                    argv,
                    cwd="/",
                    env=_OUTER | {process.MARK: mark},
                    on_output=on_output,
                    pass_fds=(status_write, *accounts.values(), *filters),
                )
            except process.NotStarted as error:
                raise SandboxGone(f"`bwrap` cannot be started: {error.strerror}") from error
            finally:
                writing.close()
                status = _read_status(status_fd)
                if status.child:
                    await _end_namespace(status)
                else:  # it was ended before it said what it had started
                    await process.sweep(mark)
        if status.exit_code is None and not ended.result.timed_out:
            raise _gone(ended.result, self._workspace)
        return replace(ended.result, exit_code=_as_signal(status.exit_code, ended.result.exit_code))

    async def read_file(self, path: str, limit: int = 1_048_576) -> bytes:
        return files.read(self._workspace, path, limit)

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        files.write(self._workspace, path, data, append=append)

    def _argv(
        self, command: Command, status_fd: int, accounts: Mapping[str, int], filters: Sequence[int]
    ) -> list[str]:
        size = str(self._limits.tmp)
        argv = ["--unshare-all", "--unshare-user", "--disable-userns", "--new-session", "--die-with-parent"]
        argv += ["--cap-drop", "ALL", "--uid", str(_UID), "--gid", str(_UID), "--hostname", "sandbox"]
        argv += ["--json-status-fd", str(status_fd), "--clearenv"]
        for fd in filters:
            argv += ["--seccomp", str(fd)]
        for name, value in ENVIRONMENT.items():
            argv += ["--setenv", name, value]
        argv += _system()
        for path, fd in accounts.items():
            argv += ["--ro-bind-data", str(fd), path]
        # Read-only, because some files below /proc/sys ask who writes and not what it may do: for
        # root they would stay open without a single capability, `core_pattern` among them.
        argv += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
        argv += ["--size", size, "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
        argv += ["--size", size, "--perms", "1777", "--tmpfs", "/tmp"]
        if command.scratch:
            argv += ["--size", size, "--tmpfs", WORKSPACE]
        else:
            argv += ["--bind", str(self._workspace), WORKSPACE]
        argv += ["--remount-ro", "/", "--chdir", WORKSPACE, "--"]
        return argv + limited(command.argv, self._limits, self._sh, processes=True)


def _given(stack: ExitStack, data: bytes) -> int:
    """A descriptor that reads `data`, closed by `stack`."""
    fd = process.sealed(data)
    stack.callback(os.close, fd)
    return fd


def _system() -> list[str]:
    """The options for /usr, its links at the root, and the few files of /etc that programs need."""
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = f"/{name}"
        if os.path.islink(path):
            argv += ["--symlink", os.readlink(path), path]
        else:
            argv += ["--ro-bind-try", path, path]
    for name in _ETC:
        argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return argv


def _inside(groups: Sequence[Path], argv: list[str]) -> list[str]:
    """`argv` behind a shell that first moves itself into the cgroups."""
    if not groups:
        return argv
    enter = "".join(f"echo $$ >{shlex.quote(str(group / 'cgroup.procs'))} && " for group in groups)
    return ["/bin/sh", "-c", enter + 'exec "$@"', "sh", *argv]


def _read_status(fd: int) -> _Status:
    """What stands in the status pipe: one JSON object a line, or less when bubblewrap was killed."""
    os.set_blocking(fd, False)
    fields: dict[str, int] = {}
    with suppress(BlockingIOError):
        for line in os.read(fd, 65_536).splitlines(keepends=True):
            if line.endswith(b"\n"):
                fields |= json.loads(line)
    return _Status(fields.get("child-pid", 0), fields.get("pid-namespace", 0), fields.get("exit-code"))


async def _end_namespace(status: _Status) -> None:
    """Kill the first process of the sandbox and wait for it: the kernel ends all others before it."""
    with suppress(ProcessLookupError, FileNotFoundError):
        pidfd = os.pidfd_open(status.child)
        try:
            # Its number may belong to somebody else by now; its namespace's number cannot.
            if os.stat(f"/proc/{status.child}/ns/pid").st_ino == status.namespace:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                await process.gone(pidfd)
        finally:
            os.close(pidfd)


def _as_signal(inner: int | None, outer: int) -> int:
    """The exit code as `subprocess` gives it. Bubblewrap reports signal n as 128 + n, like a shell."""
    if inner is None:
        return outer
    return 128 - inner if inner - 128 in _SIGNALS else inner


def _gone(result: ExecResult, workspace: Path) -> SandboxGone:
    """Why no command ran to its end: bubblewrap's own last line, and what to do about it."""
    if not workspace.is_dir():
        return SandboxGone(f"the workspace `{workspace}` is gone")
    lines = (result.head + result.tail).decode(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.startswith("bwrap: ")), "")
    if not said:
        return SandboxGone(f"`bwrap` was ended from outside (exit code {result.exit_code})")
    return SandboxGone(f"`bwrap` failed: {said.removeprefix('bwrap: ')}", _hint(said))


def _hint(said: str) -> str:
    if "Unknown option" in said:
        return "bubblewrap 0.8 or newer is needed; `bwrap --version` tells"
    for name, refusing, setting in _SYSCTLS:
        file = _PROC_SYS / name
        if file.exists() and file.read_text().strip() == refusing:
            return f"`sudo sysctl -w {setting}`"
    return ""
