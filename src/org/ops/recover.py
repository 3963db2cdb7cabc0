"""After a kill or a power cut: what was begun is ended, or was not begun. Doing it again does nothing."""

from __future__ import annotations

from org.ops import candidate, refs, steps, sync, tags, worktrees
from org.ops.git import Git, GitFailed
from org.ops.program import Program
from org.ops.steps import Swap


def recover(program: Program, swap: Swap) -> tuple[str, ...]:
    """Gives what had to be done, a line each. Raises `Busy`, and `EnvironmentProblem` for what is damaged."""
    locks = program.locks()
    with program.hold("recover") as git:
        _check(git)
        done = [f"removed a stale lock: {path.name}" for path in locks]
        done += [sync.name_source(program), steps.finish(program, git, swap)]
        done += [f"made the tag {name} again" for name in tags.rebuild(git, *sync.current(git))]
        left = worktrees.tidy(program.layout) + candidate.tidy(program)
        done += [f"removed what was half made: {name}" for name in left]
    return tuple(filter(None, done))


def _check(git: Git) -> None:
    try:
        git.run("fsck", "--no-dangling", "--no-progress")
    except GitFailed as error:
        raise refs.damaged(git, error.message) from error
