"""A small program that speaks the contract of generations, with the standard library alone. It answers with
what it is, its menu, and who it runs as. With everything on its menu, it wants all memory that there is."""

import http.server
import json
import os
import signal
import socket
import socketserver
import sys
import threading


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        said = {name: os.environ.get(f"ORG_{name.upper()}") for name in ("commit", "nonce", "model")}
        with open("menu.txt") as menu:
            body = json.dumps({**said, "menu": menu.read(), "uid": os.getuid()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        sys.stdout.write(f"{self.path}\n")
        sys.stdout.flush()


class Private(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Public(http.server.ThreadingHTTPServer):
    def __init__(self, listener: socket.socket) -> None:
        super().__init__(("", 0), Answers, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


def main() -> None:
    def say(word: str) -> None:
        os.write(int(os.environ["ORG_ACK_FD"]), f"{word}\n".encode())

    private = Private(os.environ["ORG_HEALTH_SOCK"], Answers)
    threading.Thread(target=private.serve_forever, daemon=True).start()
    say("ready")
    os.read(int(os.environ["ORG_GO_FD"]), 64)
    public = Public(socket.socket(fileno=int(os.environ["ORG_LISTEN_FD"])))
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    threading.Thread(target=public.serve_forever, daemon=True).start()
    say("accepting")
    with open("menu.txt") as menu:
        eaten = [b""] if menu.read() == "everything\n" else []
    while eaten:
        eaten.append(b"x" * 2**24)
    ending.wait()
    public.shutdown()
    say("draining")
    say("drained")


if __name__ == "__main__":
    main()
