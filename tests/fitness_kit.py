"""A program that answers as OpenAI's API does, well or badly as a file of its says, and its gate.

`python fitness_kit.py` serves on `$PORT`; the file `mode` where it is started says how. Asked for `double 4`
it says `8`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from generation_kit import end, free_port
from ops_kit import Shop
from org.ops import candidate, control, history, merges, refs, sync, verdicts
from org.ops.fitness import judge
from org.ops.fitness.ask import Door
from org.ops.fitness.case import Wish
from org.ops.fitness.rules import Ask
from org.ops.merges import Gate

TASKS = "".join(
    f'[[task]]\nid = "double-{n}"\nprompt = "double {n}"\ncheck.regex = \'\\b{2 * n}\\b\'\ntimeout = 20\n'
    for n in range(1, 13)
)
QUICK = {"pairs": 12, "seconds": 100, "tokens": 100_000}


# -- the program


def answer(mode: str, prompt: str, seed: int) -> str:
    found = re.search(r"double (\d+)", prompt)
    number = int(found[1]) if found else 0
    chance = hashlib.sha256(f"{seed} {number} {os.getpid()}".encode()).digest()[0] / 256
    if mode == "half" and number % 2:
        return "no idea"
    if mode == "noisy" and chance > 0.7:
        return "no idea"
    return str(2 * number)


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mode = "well"
    gets = 0

    def do_GET(self) -> None:
        Answers.gets += 1
        known = self.path in ("/health", "/v1/models", "/metrics")
        sick = self.mode == "sick" and Answers.gets > 8
        failed = 10 * Answers.gets if self.mode == "failing" else 0
        counts = f'bakery_answers{{status="200"}} {Answers.gets}\nbakery_answers{{status="500"}} {failed}\n'
        self.say(503 if sick else 200 if known else 404, counts if self.path == "/metrics" else {})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            asked = json.loads(data)
            prompt, seed = asked["messages"][-1]["content"], int(asked.get("seed", 0))
        except (ValueError, KeyError, TypeError):
            self.say(500 if self.mode == "rude" else 400, {"error": {"message": "what?"}})
            return
        if "double" in prompt:
            self.misbehave()
        text = answer(self.mode, prompt, seed)
        tokens = 5000 if self.mode == "wordy" else 10
        said: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
        if self.mode == "nan" and "double" in prompt:
            said["choices"][0]["message"]["content"] = float("nan")
        self.say(200, said | {"usage": {"total_tokens": tokens}})
        if self.mode == "tired" and "double" in prompt:
            threading.Timer(0.02, os._exit, (3,)).start()

    def misbehave(self) -> None:
        if self.mode == "crash":
            os._exit(3)
        if self.mode in ("spoil", "vanish"):
            file = Path("org.toml")
            os.chmod(".", 0o755)
            os.chmod(file, 0o644)
            file.write_text(file.read_text() + "# served otherwise\n")
        if self.mode == "vanish":
            os.unlink("org.toml")
            os._exit(3)
        if self.mode == "escape":
            self.say(500, {"error": {"message": "\x1b]0;mine\x07\ud800\n✓ all is well"}})
            raise ConnectionAbortedError
        if self.mode == "slow":
            time.sleep(0.6)
        if self.mode == "garbage":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{{{{{")
        if self.mode == "endpoint":
            self.say(503, {"error": {"message": "the model server is down"}})
        if self.mode in ("garbage", "endpoint"):
            self.close_connection = True
            raise ConnectionAbortedError

    def say(self, status: int, said: object) -> None:
        body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    Answers.mode = Path("mode").read_text().strip()
    if Answers.mode == "dead":
        sys.exit("the oven is cold")
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()


# -- its gate


class Bakery(Shop):
    """The program in a repository, trusted. `more` goes into `[generation]`."""

    def __init__(
        self,
        folder: Path,
        mode: str = "well",
        tasks: str = TASKS,
        budget: Mapping[str, int] = QUICK,
        more: str = "",
        files: Mapping[str, str] = {},
    ) -> None:
        super().__init__(folder)
        self.ports = [free_port(), free_port()]
        start = json.dumps([sys.executable, __file__])
        fitness = "\n".join(f"{name} = {value}" for name, value in budget.items())
        settings = f"[generation]\nstart = {start}\nports = {self.ports}\ndrain_timeout = 10\n{more}\n"
        settings += f"[generation.fitness]\n{fitness}\n"
        self.save("bakery", {"org.toml": settings, "mode": mode, "fitness.toml": tasks, **files})
        assert self.org("trust").returncode == 0

    def judged(self, mode: str, wish: Wish = judge.USUAL) -> dict[str, Any]:
        """The verdict on a new candidate that is like that, the first since the last promote."""
        self.forget()
        self.change({"mode": f"{mode}\n", f"note-{time.time_ns()}": mode}, new=True)
        return self.judge(wish)

    def judge(self, wish: Wish = judge.USUAL) -> dict[str, Any]:
        with environment(self.env):
            return judge.run(self.program, self.pinned(), wish)

    def pinned(self) -> Gate:
        """The merge of the candidate, on which nobody has said anything."""
        with self.program.hold("gate") as git:
            known, told = sync.current(git)
            return merges.prepare(git, known, told, candidate.branch_of(self.program))

    def keep(self, verdict: Mapping[str, object]) -> None:
        """As what was said of the candidate as it is."""
        merge = self.pinned().merge
        with self.program.hold("keep") as git:
            verdicts.record(git, merge, verdict)

    def forget(self) -> None:
        """As if nothing had been tried since the last promote."""
        if self.program.begun:
            with self.program.hold("forget") as git:
                told = history.read(git, refs.read(git))
                kept = {promote.commit for promote in told.promotes}
                tried = set(git.run("for-each-ref", "--format=%(objectname)", refs.GATES).split())
                git.run("notes", "--ref=refs/notes/org", "remove", "--ignore-missing", *sorted(tried - kept))

    def close(self) -> None:
        if self.program.begun and (supervisor := control.status(self.layout).get("supervisor")):
            end(supervisor["pid"])


@contextmanager
def environment(env: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# -- a side of its own


class Stub:
    """A side whose answers are what `reply` says: a status and a body, given the prompt and the seed."""

    def __init__(self, reply: Callable[[str, int], tuple[int, bytes]]) -> None:
        class Handler(Answers):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = reply(asked["messages"][-1]["content"], asked["seed"])
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.lives = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def door(self) -> Door:
        return Door(self._server.server_address[1], Ask())

    async def revive(self) -> bool:
        return self.lives

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def completion(text: object, tokens: object = 10) -> bytes:
    said = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return json.dumps(said | {"usage": {"total_tokens": tokens}}).encode()


def doubles(prompt: str, seed: int) -> tuple[int, bytes]:
    """Right, always."""
    return 200, completion(answer("well", prompt, seed))


# -- a page


class Reader(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


if __name__ == "__main__":
    main()
