"""Programs that must not outlive who started them, however that one ends."""

from __future__ import annotations

import shutil
from collections.abc import Sequence


def tied(argv: Sequence[str]) -> list[str]:
    """The command, such that the kernel kills it when the thread that starts it ends.

    Where there is no `setpriv` (not Linux) it is the command itself: then only an orderly end of its
    starter ends it.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *argv] if setpriv else list(argv)
