"""All that a verdict depends on. When one of it differs, the verdict is of something else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from org.errors import UsageError
from org.ops import settings
from org.ops.fitness import rules, tasks
from org.ops.fitness.rules import Rules
from org.ops.fitness.tasks import Suite
from org.ops.git import Git
from org.ops.plan import environment
from org.ops.settings import Settings

STARTER = Path(__file__).with_name("suite.toml")
_MODEL = ("ORG_MODEL", "ORG_BASE", "OLLAMA_MODEL", "OLLAMA_BASE", "OLLAMA_HOST", "OPENAI_BASE_URL")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What main, the person and this program say of the gate. `tasks` is the file that the person named,
    empty for main's suite; `folder` has the files of main."""

    main: str
    settings: Settings
    rules: Rules
    suite: Suite
    model: str
    tasks: str
    code: str

    @property
    def names(self) -> dict[str, str]:
        """By these a verdict says of what it is."""
        config = json.dumps(self.rules.table, sort_keys=True, default=str)
        return {
            "main": self.main,
            "suite": self.suite.digest,
            "config": _digest(config.encode()),
            "model": self.model,
            "gate_code": self.code,
            "tasks": self.tasks,
        }


def read(git: Git, main: str, folder: Path, tasks_file: str = "") -> Inputs:
    """Raises `ConfigError` for what is off, `UsageError` when there is no such file."""
    text = _blob(git, main, settings.FILE) or ""
    known = rules.read(text)
    suite = _of_person(Path(tasks_file)) if tasks_file else _of_main(git, main, folder)
    return Inputs(main, settings.read(text), known, suite, _model(known), tasks_file, _code())


def stands(git: Git, verdict: Mapping[str, object]) -> bool:
    """Whether a verdict is of what there is now. One that names nothing was given by somebody else."""
    if "inputs" not in verdict:
        return True
    main, tasks_file = str(verdict.get("main")), str(verdict.get("tasks", ""))
    if tasks_file and not Path(tasks_file).is_file():
        return False
    names = read(git, main, Path(), tasks_file).names
    return verdict["inputs"] == names


def _of_main(git: Git, main: str, folder: Path) -> Suite:
    text = _blob(git, main, tasks.FILE)
    if text is None:
        return tasks.read(STARTER.read_text(encoding="utf-8"), STARTER.name)
    found = tasks.read(text, tasks.FILE)
    scorers = {
        task.check: (_blob(git, main, task.check) or "").encode("utf-8", "surrogateescape")
        for task in found.tasks
        if task.kind == "python"
    }
    return tasks.read(text, tasks.FILE, str(folder), scorers)


def _of_person(path: Path) -> Suite:
    try:
        text = path.read_text(encoding="utf-8")
        found = tasks.read(text, path.name)
        scorers = {
            task.check: Path(path.parent, task.check).read_bytes()
            for task in found.tasks
            if task.kind == "python"
        }
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the tasks: {error}") from None
    return tasks.read(text, path.name, str(path.parent), scorers)


def _model(known: Rules) -> str:
    """Who answers, as far as it can be told from here."""
    given = environment(os.environ, "candidate")
    named = [f"{name}={given[name]}" for name in _MODEL if name in given]
    return " ".join([known.ask.model, *named])


def _code() -> str:
    """Of all that decides here."""
    root = Path(__file__).resolve().parents[1]
    found = hashlib.sha256()
    for path in sorted((*root.rglob("*.py"), STARTER)):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return "sha256:" + found.hexdigest()


def _blob(git: Git, commit: str, path: str) -> str | None:
    missing, text = git.ask("cat-file", "blob", f"{commit}:{path}", fine=(0, 128))
    return None if missing else text


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
