"""A room's events as something to read or to keep: Markdown, or JSON, one event a line.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from org.encoding import to_json
from org.events import (
    CallFinished,
    Cleared,
    Committed,
    Compacted,
    Invited,
    Joined,
    Left,
    ModeChanged,
    ModelChanged,
    Nudged,
    Posted,
    Stepped,
    Stopped,
    TurnEnded,
    counting,
)
from org.messages import Audience, Message


def to_json_lines(events: Iterable[Committed]) -> Iterator[str]:
    """The events that count, each as one line of JSON in ASCII (without the line's end)."""
    for event in counting(events):
        yield json.dumps(to_json(event))


def to_markdown(events: Iterable[Committed], title: str = "") -> str:
    """Who said what to whom, what the tools answered, and why it stopped; of the events that count.

    What participants and tools wrote cannot break out of its place: messages are quoted, and a fence
    is longer than any run of backticks inside it. Times are UTC.
    """
    blocks = [f"# {_line(title)}"] if title else []
    for event in said_once(events):
        blocks += _blocks(event)
    return _printable("\n\n".join(blocks) + "\n")


def said_once(events: Iterable[Committed]) -> Iterator[Committed]:
    """The events that count, the end of a turn without the words that were posted just before it."""
    posted: set[str] = set()
    for event in counting(events):
        match event:
            case Posted(message):
                posted.add(message.sender)
            case Invited() | Stepped() | CallFinished() | Nudged():
                posted.discard(event.participant)
            case TurnEnded() if event.participant in posted:
                yield replace(event, text="")
                continue
            case _:
                pass
        yield event


def _blocks(event: Committed) -> list[str]:
    match event:
        case Posted(message):
            return [f"### {_heading(message)}", _quote(message.content)]
        case CallFinished():
            return _call(event)
        case Joined(name, kind, profile, model):
            traits = ", ".join(trait for trait in (kind, profile, model) if trait)
            return [f"*{_line(name)} entered ({_line(traits)})*"]
        case Left(name):
            return [f"*{_line(name)} left*"]
        case ModeChanged(name, audience):
            return [f"*{_line(name)} now speaks to {_addressees(audience)}*"]
        case ModelChanged(name, model):
            return [f"*{_line(name)} now speaks through {_line(model)}*"]
        case Compacted(name, dropped) if not event.summarised:
            return [f"*{_line(name)} no longer sees its first {dropped} entries, and no summary of them*"]
        case Compacted(name, dropped):
            return [f"*{_line(name)} now sees a summary of its first {dropped} entries*"]
        case Cleared():
            return ["*everybody's view starts afresh*"]
        case TurnEnded(name, _, status, _, detail, text) if status in ("failed", "interrupted"):
            how = "failed" if status == "failed" else "was interrupted"
            line = f"*{_line(name)}'s turn {how}{_after(detail)}*"
            return [line, _quote(text)] if text else [line]
        case Stopped(reason, detail):
            return [f"*stopped: {reason}{_after(detail)}*"]
        case _:
            return []


def _heading(message: Message) -> str:
    time = datetime.fromtimestamp(message.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{_line(message.sender)} → {_addressees(message.audience)} · {time}"


def _addressees(audience: Audience) -> str:
    if audience.kind == "direct":
        return f"{_line(', '.join(audience.names))} (private)"
    return f"file {_line(audience.path)}" if audience.kind == "file" else "everyone"


def _call(event: CallFinished) -> list[str]:
    result = event.result
    outcome = [f"{result.seconds:.1f} s"]
    if result.exit_code is not None:
        outcome.insert(0, f"exit code {result.exit_code}")
    if result.error is not None:
        outcome.insert(0, f"{result.error.kind}: {_line(result.error.message)}")
    blocks = [f"#### {_line(event.participant)} called {_line(event.call.name)}"]
    for name, value in event.call.arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        blocks += [f"{_line(name)}:", _fenced(text)]
    blocks.append(f"{', '.join(outcome)}{':' if result.output else ''}")
    return [*blocks, _fenced(result.output)] if result.output else blocks


def _fenced(text: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    end = "" if text.endswith("\n") else "\n"
    return f"{fence}text\n{text}{end}{fence}"


def _quote(text: str) -> str:
    # The ends of lines that Markdown knows; a bare carriage return is one of them.
    return "\n".join(f"> {line}" if line else ">" for line in re.split(r"\r\n|\r|\n", text))


def _line(text: str) -> str:
    """Text for the middle of a line, with nothing that Markdown would take as markup."""
    return re.sub(r"([\\`*_\[\]<>#&~|])", r"\\\1", " ".join(text.split()))


def _after(detail: str) -> str:
    return f": {_line(detail)}" if detail else ""


def _printable(text: str) -> str:
    """Text that any file takes: halves of a surrogate pair joined, lone ones and NUL replaced."""
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return joined.replace("\0", "\ufffd")
