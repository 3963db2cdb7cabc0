"""A candidate that current cannot follow, when it is taken back, is not promoted."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from fitness_kit import environment
from org.errors import ConfigError, Inconclusive
from org.ops import settings
from org.ops.fitness import keeping, rules
from org.ops.fitness.arena import Side, arena
from org.ops.fitness.gates import Finding
from org.ops.layout import Layout

ROOT = Path(__file__).parent.parent
KEEPS = ['POST /notes {"title": "{name}"}', "GET /notes/{name}"]
NOTES = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FORMAT = 1
FOLDER = "notes"
CAREFUL = False

folder = Path(os.environ["XDG_STATE_HOME"], FOLDER)
folder.mkdir(parents=True, exist_ok=True)
if CAREFUL and any(int(note.read_text()) > FORMAT for note in folder.iterdir()):
    sys.exit("a note is of a newer version")


class Notes(BaseHTTPRequestHandler):
    def do_GET(self):
        note = folder / self.path.rpartition("/")[2]
        if self.path == "/health":
            self.say(200)
        elif not note.exists():
            self.say(404)
        else:
            self.say(200 if int(note.read_text()) <= FORMAT else 500)

    def do_POST(self):
        title = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["title"]
        Path(folder, title).write_text(str(FORMAT))
        self.say(201)

    def say(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Notes).serve_forever()
"""


def commit(folder: Path, number: int, source: str) -> tuple[str, Path]:
    """A commit of the program that keeps notes, and its files."""
    files = folder / f"commit-{number}"
    files.mkdir()
    start = json.dumps([sys.executable, "notes.py"])
    (files / "org.toml").write_text(f"[generation]\nstart = {start}\ndrain_timeout = 10\n")
    (files / "notes.py").write_text(source)
    return f"{number:040x}", files


async def followed(folder: Path, keeps: list[str], *commits: tuple[str, Path]) -> Finding:
    known = rules.read(f"[generation]\nkeeps = {json.dumps(keeps)}\nask.token = 'org/serve-token'")
    layout = Layout(folder / "program")
    layout.root.mkdir()
    with environment({"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}):
        async with arena(layout):
            current, candidate = (Side(layout, "one", *one, known.ask) for one in commits)
            return await keeping.follow(current, candidate, known)


@pytest.mark.parametrize(
    ("before", "after", "wrong"),
    [
        ("", "", ""),
        (
            "FORMAT = 1",
            "FORMAT = 2",
            "of what current has begun current says 500 to GET /notes/{name}, and 200",
        ),
        ('"notes"', '"elsewhere"', "of what current has begun the candidate says 404 to GET /notes/{name}"),
    ],
)
async def test_what_one_leaves_the_next_goes_on_with(
    tmp_path: Path, before: str, after: str, wrong: str
) -> None:
    source = NOTES.replace(before, after) if before else NOTES + "# the same\n"
    found = await followed(tmp_path, KEEPS, commit(tmp_path, 1, NOTES), commit(tmp_path, 2, source))
    assert (found.gate, found.passed) == ("keeps", not wrong)
    assert (wrong or "each goes on") in found.about


async def test_current_does_not_even_start_with_what_the_candidate_leaves(tmp_path: Path) -> None:
    careful = NOTES.replace("CAREFUL = False", "CAREFUL = True")
    newer = careful.replace("FORMAT = 1", "FORMAT = 2")
    found = await followed(tmp_path, KEEPS, commit(tmp_path, 1, careful), commit(tmp_path, 2, newer))
    assert not found.passed
    assert "one does not start with what another has left: 000000000000 ended" in found.about


async def test_a_program_that_keeps_nothing_proves_nothing(tmp_path: Path) -> None:
    one = commit(tmp_path, 1, NOTES)
    with pytest.raises(Inconclusive, match=r"current itself keeps nothing here: GET /lost/\{name\}: 404"):
        await followed(tmp_path, ["GET /lost/{name}"], one, one)


async def test_current_has_to_start(tmp_path: Path) -> None:
    one = commit(tmp_path, 1, "import sys; sys.exit('no table')")
    with pytest.raises(Inconclusive, match="current does not follow itself here"):
        await followed(tmp_path, KEEPS, one, one)


async def test_a_newer_journal_of_org_is_refused(tmp_path: Path) -> None:
    """Its own settings, with rooms of nobody: no model is asked."""
    text = (ROOT / "org.toml").read_text(encoding="utf-8")
    known = [" ".join(one).strip() for one in rules.read(text).keeps]
    keeps = [one.replace('["guide=simple"]', "[]") for one in known]
    assert keeps != known
    commits = []
    for number in (1, 2):
        files = tmp_path / f"commit-{number}"
        shutil.copytree(ROOT / "src", files / "src", ignore=shutil.ignore_patterns("__pycache__"))
        (files / settings.FILE).write_text(text)
        commits.append((f"{number:040x}", files))
    newer = commits[1][1] / "src/org/journal/files.py"
    newer.write_text(newer.read_text().replace("\nFORMAT = 1\n", "\nFORMAT = 2\n"))
    assert "FORMAT = 2" in newer.read_text()
    with environment({"ORG_BASE": "http://127.0.0.1:9/v1"}):
        found = await followed(tmp_path, keeps, *commits)
    assert not found.passed
    assert "of what the candidate has begun current says 503 to GET /rooms/{name}/transcript" in found.about


@pytest.mark.parametrize("text", ["FETCH /x", "GET", " ", "GET x", "POST /x {", "POST /x nothing"])
def test_what_is_no_request(text: str) -> None:
    with pytest.raises(ConfigError, match="must be such as 'POST /notes"):
        rules.read(f"[generation]\nkeeps = {json.dumps([text])}")
