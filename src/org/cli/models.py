"""`org models`: what the model server offers, and which model a room would take."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from org.cli.choose import SUGGESTED, offered_models
from org.cli.options import Parser
from org.cli.style import Style
from org.config import Settings, load

JSON_VERSION = 1


@dataclass(frozen=True, slots=True)
class Offer:
    """`chosen` is empty when nobody chose; `why` says who did, or what to do about it."""

    base: str
    base_source: str
    models: tuple[str, ...]
    chosen: str
    why: str


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="org models", description="List what the model server offers, and what is chosen.")
    made.add_argument("--base", metavar="URL", help="another OpenAI-compatible server")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(argv: list[str]) -> int:
    """Print the list. Raises `EnvironmentProblem` when no server answers."""
    args = parser().parse_args(argv)
    settings = load(cwd=Path(), flags={"base": args.base}, env=os.environ)
    offer = offer_of(settings, asyncio.run(offered_models(settings)))
    if args.json:
        print(as_json(offer))
    else:
        print(as_text(offer, Style.for_stream(sys.stdout, os.environ)))
    return 0


def offer_of(settings: Settings, models: list[str]) -> Offer:
    chosen, source = settings.model or "", settings.sources["model"]
    if chosen:
        why = f"from {source}" + ("" if _is_there(chosen, models) else "; this server does not list it")
    elif len(models) == 1:
        chosen, why = models[0], "the only one"
    elif models:
        why = 'take one with `-m NAME`, ORG_MODEL, or `model = "NAME"` in org.toml'
    else:
        why = f"fetch one with `ollama pull {SUGGESTED}`"
    return Offer(settings.base, settings.sources["base"], tuple(models), chosen, why)


def as_json(offer: Offer) -> str:
    document = {
        "version": JSON_VERSION,
        "base": offer.base,
        "base_source": offer.base_source,
        "models": offer.models,
        "chosen": offer.chosen or None,
        "why": offer.why,
    }
    return json.dumps(document, indent=1)


def as_text(offer: Offer, style: Style) -> str:
    count = {0: "no models", 1: "1 model"}.get(len(offer.models), f"{len(offer.models)} models")
    lines = [f"{style.bold(offer.base)} {style.dim(f'({offer.base_source})')}: {count}"]
    for model in offer.models:
        chosen = _same(model, offer.chosen)
        lines.append(f"{style.green('*')} {style.bold(model)}" if chosen else f"  {model}")
    if offer.chosen:
        lines += ["", f"chosen: {offer.chosen} ({offer.why})"]
    else:
        lines += ["", f"none is chosen: {offer.why}"]
    return "\n".join(lines)


def _is_there(model: str, models: list[str]) -> bool:
    return model.endswith(".gguf") or any(_same(model, other) for other in models)


def _same(model: str, other: str) -> bool:
    """Ollama takes a name without a tag for its `latest`."""
    return model.removesuffix(":latest") == other.removesuffix(":latest")
