"""Figures about the rooms and the server, in the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from org.events import CallFinished, Event, Stepped, Stopped, TurnEnded
from org.serve.forks import Forks
from org.serve.hub import Hub

SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)
KNOWN_TOOLS = frozenset({"sh", "python_run", "chat_mode"})
"""Models make up names of tools; those count together."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})


class Histogram:
    """How often something took so long."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, labels: str = "") -> Iterable[str]:
        comma, braced = ("," if labels else ""), (f"{{{labels}}}" if labels else "")
        total = 0
        for limit, count in zip((*SECONDS, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels}{comma}le="{limit}"}} {total}'
        yield f"{name}_sum{braced} {self._sum:.6f}"
        yield f"{name}_count{braced} {total}"


class Metrics:
    """Fed with the events of the rooms that are open (`event`) and with answers (`request`)."""

    def __init__(self) -> None:
        self._turns: Counter[str] = Counter()
        self._stops: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._turn_seconds = Histogram()
        self._call_seconds = Histogram()
        self._request_seconds: dict[str, Histogram] = {}

    def event(self, event: Event) -> None:
        match event:
            case TurnEnded():
                self._turns[event.status] += 1
                self._turn_seconds.add(event.seconds)
            case Stepped(usage=usage) if usage is not None:
                self._tokens["prompt"] += usage.prompt
                self._tokens["completion"] += usage.completion
                self._tokens["cached"] += usage.cached
            case CallFinished(call=call, result=result):
                tool = call.name if call.name in KNOWN_TOOLS else "other"
                self._calls[tool, result.error.kind if result.error else "ok"] += 1
                self._call_seconds.add(result.seconds)
            case Stopped(reason):
                self._stops[reason] += 1
            case _:
                pass

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """An answer. One that streams counts, but how long somebody read says nothing of us."""
        self._requests[method if method in METHODS else "other", route, status] += 1
        if not route.endswith("/events"):
            self._request_seconds.setdefault(route, Histogram()).add(seconds)

    def text(self, hub: Hub, forks: Forks) -> str:
        """Everything, and how the rooms stand now."""
        opened = [served for served in hub.served if served.session is not None]
        members = [member for served in opened for member in served.state.members.values()]
        turns = sum(bool(member.memory and member.memory.open_turn) for member in members)
        lines = [
            *_counter("org_turns_total", "turns by how they ended", "status", self._turns),
            *_counter("org_exchanges_total", "exchanges by why they stopped", "reason", self._stops),
            *_counter("org_tokens_total", "tokens as the servers counted them", "kind", self._tokens),
            "# HELP org_tool_calls_total tool calls by what came of them",
            "# TYPE org_tool_calls_total counter",
            *(
                f'org_tool_calls_total{{tool="{tool}",outcome="{outcome}"}} {count}'
                for (tool, outcome), count in sorted(self._calls.items())
            ),
            "# HELP org_http_requests_total answers",
            "# TYPE org_http_requests_total counter",
            *(
                f'org_http_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
                for (method, route, status), count in sorted(self._requests.items())
            ),
            *_histogram("org_turn_seconds", "how long turns took"),
            *self._turn_seconds.lines("org_turn_seconds"),
            *_histogram("org_tool_call_seconds", "how long tool calls took"),
            *self._call_seconds.lines("org_tool_call_seconds"),
            *_histogram("org_http_request_seconds", "how long answers took, those that stream left out"),
        ]
        for route, histogram in sorted(self._request_seconds.items()):
            lines += histogram.lines("org_http_request_seconds", f'route="{route}"')
        lines += [
            *_gauge("org_rooms_open", "rooms that are open here", len(opened)),
            *_gauge("org_forks_open", "rooms that answer OpenAI's clients now", forks.count),
            *_gauge("org_turns_running", "turns that run now", turns),
            *_gauge("org_messages_queued", "messages not read yet", sum(len(m.unread) for m in members)),
            *_gauge("org_readers", "event streams that are read", sum(s.stream.readers for s in hub.served)),
            *_gauge("org_readers_slow", "how often one lost deltas", sum(s.stream.lost for s in hub.served)),
        ]
        return "\n".join(lines) + "\n"


def metrics_endpoint(metrics: Metrics, hub: Hub, forks: Forks) -> Callable[[Request], Awaitable[Response]]:
    """`GET /metrics`."""

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(metrics.text(hub, forks), media_type="text/plain; version=0.0.4")

    return endpoint


def _counter(name: str, about: str, label: str, counts: Mapping[str, int]) -> Iterable[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} counter"
    for value, count in sorted(counts.items()):
        yield f'{name}{{{label}="{value}"}} {count}'


def _histogram(name: str, about: str) -> Iterable[str]:
    return f"# HELP {name} {about}", f"# TYPE {name} histogram"


def _gauge(name: str, about: str, value: int) -> Iterable[str]:
    return f"# HELP {name} {about}", f"# TYPE {name} gauge", f"{name} {value}"
