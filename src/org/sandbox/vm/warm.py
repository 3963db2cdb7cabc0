"""An interpreter that is started once and forked for each `python3 -S -c CODE`: the start of Python
and the import of what most code needs are paid for in advance.

A program of the guest, its arguments the number of a socket. It gets requests on it, each one message
with a JSON object `{id, env, cwd, uid, gid}` and descriptors: of a file with the code, for input,
output and error, and of the cgroups. It answers `{id, pid}` with a descriptor of the process,
and `{id, status, peak}` when that ended. Standard library only.
"""

from __future__ import annotations

import ast
import atexit
import base64
import bisect
import collections
import contextlib
import copy
import csv
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import gc
import hashlib
import heapq
import io
import itertools
import json
import linecache
import math
import operator
import os
import pathlib
import random
import re
import select
import signal
import socket
import statistics
import string
import sys
import textwrap
import time
import traceback
import types
import typing
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from org.sandbox.vm import child
else:  # beside this file in the guest
    import child

READY_MADE = (
    *(ast, base64, bisect, collections, contextlib, copy, csv, dataclasses, datetime, decimal, enum),
    *(fractions, functools, hashlib, heapq, io, itertools, json, linecache, math, operator, pathlib),
    *(random, re, statistics, string, textwrap, time, traceback, types, typing),
)
_MOST_BYTES = 65_536
_MOST_FDS = 16


def serve(control: socket.socket) -> str:
    """Fork for requests until the other side hangs up. Returns in the forked processes alone, with
    the code to run; the server itself exits."""
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    running: dict[int, int] = {}
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == wake:
                os.read(wake, 4096)
                _report(control, running)
                continue
            message, fds, _, _ = socket.recv_fds(control, _MOST_BYTES, _MOST_FDS)
            if not message:
                sys.exit(0)
            request = json.loads(message)
            pid = os.fork()
            if pid == 0:
                return _begin(request, fds)
            running[pid] = request["id"]
            fds.append(os.pidfd_open(pid))
            socket.send_fds(control, [json.dumps({"id": request["id"], "pid": pid}).encode()], fds[-1:])
            for one in fds:
                os.close(one)


def _report(control: socket.socket, running: dict[int, int]) -> None:
    while running:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ended.si_pid, signal.SIGKILL)  # before its number can be somebody else's
        pid, status, usage = os.wait4(ended.si_pid, 0)
        told = {"id": running.pop(pid), "status": status, "peak": usage.ru_maxrss * 1024}
        control.send(json.dumps(told).encode())


def _begin(request: dict[str, Any], fds: list[int]) -> str:
    """In the forked process: become the command. Returns its code."""
    signal.set_wakeup_fd(-1)
    with open(fds[0], encoding="utf-8", errors="surrogateescape", closefd=False) as file:
        code = file.read()
    plan = child.Plan(
        ("python3",),
        request["env"],
        request["cwd"],
        child.Identity(request["uid"], request["gid"]),
        (fds[1], fds[2], fds[3]),
        fds[4:],
    )
    try:
        child.become(plan)
    except OSError as error:
        os.write(2, f"python3: {error.strerror}\n".encode())
        os._exit(126)
    os.closerange(3, 1024)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as every Python does
    os.environ.clear()
    os.environ.update(request["env"])
    return code


def _run(source: str, module: types.ModuleType) -> int:
    """Run the code as `python3 -c` would; its exit code."""
    try:
        exec(compile(source, "<string>", "exec"), module.__dict__)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        sys.stderr.write(f"{error.code}\n")
        return 1
    except BaseException as error:  # noqa: BLE001 -- the edge of this process
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        sys.excepthook(type(error), error.with_traceback(frames), frames)
        return 1
    return 0


def _leave(code: int) -> NoReturn:
    """End as Python does, but for taking the modules apart: that would copy what is still shared with
    the server, and takes longer than most code runs."""
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads it, or the code closed it
        code = code or 120
    finally:
        os._exit(code & 0xFF)


if __name__ == "__main__":
    _source = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = ["-c"]
    sys.path[0] = ""
    sys.modules["__main__"] = types.ModuleType("__main__")
    _leave(_run(_source, sys.modules["__main__"]))
