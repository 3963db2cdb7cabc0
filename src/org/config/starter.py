"""The `org.toml` that `org init` writes, made from the table of keys. Pure."""

from __future__ import annotations

import json

from org.config.schema import DEFAULT_ROSTER, KEYS, Key

_HEADER = """\
# Settings of `org` for this folder and those below. Every line is optional: take the `#` away to set it.
# They come after flags and environment variables, and before your own file; `org config` shows what holds.
# What widens the person's own settings (another server, higher limits, freer tools, the sandbox) counts
# only after `org trust`.
"""
# For keys that have no default.
_EXAMPLES = {"model": "qwen3:8b", "context_tokens": 32_768, "vm.mirror": "http://mirror.example/debian"}


def starter_toml() -> str:
    """A commented `org.toml` that names every key with its default."""
    lines = [_HEADER]
    lines += [_line(key) for key in KEYS if "." not in key.name]
    table = ""
    for key in KEYS:
        name, dot, _ = key.name.partition(".")
        if dot and name != table:
            table = name
            lines.append(f"\n#[{table}]")
        if dot:
            lines.append(_line(key))
    lines.append("\n# Who is in the room. Also: model, base, system, temperature, max_tokens.")
    for member in DEFAULT_ROSTER:
        lines.append(f'#[[participant]]\n#id = "{member.id}"\n#profile = "{member.profile}"')
    return "\n".join(lines) + "\n"


def _line(key: Key) -> str:
    value = key.default if key.default is not None else _EXAMPLES[key.name]
    # JSON writes these kinds of values (text, numbers, true, false) as TOML does.
    setting = f"#{key.name.rpartition('.')[2]} = {json.dumps(value)}"
    return f"# {key.about}: {key.expected}\n{setting}"
