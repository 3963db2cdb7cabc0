"""What the room of `org demo` is asked and recites; the words are in `demo.toml` beside this file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DemoScripts:
    """`task` is what the person says first. `scripts` go to `scripted.scripted_model`; each has the
    name of the participant of the default roster in whose system prompt `[[name]]` must stand."""

    task: str
    scripts: Mapping[str, Sequence[str]]


def demo_scripts() -> DemoScripts:
    content = tomllib.loads(Path(__file__).with_name("demo.toml").read_text("utf-8"))
    return DemoScripts(content["task"], content["scripts"])
