"""What is tried: the table of attempts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

MODEL_PORT = 11434
"""Where the model server appears in a machine."""
PORTS = ("org.ctl", "org.net")
"""The ports between a machine and its host."""

Given = Mapping[str, Any]
Far: TypeAlias = tuple[str, str, str, int, str]
"""(name, kind, host, port, question) of a server far away."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """`kind` is the intruder's name for how it is made, `given` what it is told. It proves something only
    when the control of that name was reached; an empty one stands for none. `root` makes it as the
    root of a machine."""

    name: str
    wall: str
    tried: str
    kind: str
    given: Given = field(default_factory=dict)
    control: str = ""
    root: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """Something that the same kind of attempt must reach."""

    name: str
    tried: str
    given: Given
    root: bool = False


@dataclass(frozen=True, slots=True)
class Aims:
    """What the attempts are aimed at. `ports` by attempt: a listener of the host each, on its loopback;
    `addresses` are all that the host has beside."""

    ports: Mapping[str, int]
    addresses: Sequence[str] = ()


PUBLIC: tuple[Far, ...] = (
    ("dns-udp-cloudflare", "udp", "1.1.1.1", 53, "dns"),
    ("dns-udp-google", "udp", "8.8.8.8", 53, "dns"),
    ("dns-udp-quad9", "udp", "9.9.9.9", 53, "dns"),
    ("dns-udp-ipv6", "udp", "2606:4700:4700::1111", 53, "dns"),
    ("dns-tcp", "tcp", "1.1.1.1", 53, ""),
    ("dns-tls", "tcp", "9.9.9.9", 853, ""),
    ("https", "tcp", "1.1.1.1", 443, ""),
    ("https-ipv6", "tcp", "2606:4700:4700::1111", 443, ""),
    ("quic", "udp", "1.1.1.1", 443, "quic"),
    ("ssh", "tcp", "8.8.8.8", 22, ""),
    ("smtp", "tcp", "8.8.8.8", 25, ""),
    ("ntp", "udp", "162.159.200.123", 123, "ntp"),
)
# Addresses that a host has for its guests, by what makes them; a port that nobody serves would answer, too.
_HOSTS = (
    ("qemu-host", "10.0.2.2", 22),
    ("qemu-dns", "10.0.2.3", 53),
    ("qemu-smb", "10.0.2.4", 445),
    ("docker-bridge", "172.17.0.1", 22),
    ("docker-desktop", "192.168.65.2", 22),
    ("libvirt-bridge", "192.168.122.1", 22),
    ("virtualbox-bridge", "192.168.56.1", 22),
    ("lima-host", "192.168.5.2", 22),
    ("link-local", "169.254.1.1", 80),
    ("link-local-ipv6", "fe80::1%lo", 22),
    ("local-ipv6", "fd00::1", 22),
    ("metadata", "169.254.169.254", 80),
    ("metadata-ipv6", "fd00:ec2::254", 80),
)
_NEAR = (
    ("dhcp", "255.255.255.255", 67, "dhcp"),
    ("mdns", "224.0.0.251", 5353, "dns"),
    ("mdns-ipv6", "ff02::fb", 5353, "dns"),
    ("llmnr", "224.0.0.252", 5355, "dns"),
    ("ssdp", "239.255.255.250", 1900, "ssdp"),
)
_GATEWAY_PORTS = (22, 53, 80, 443, 7001, 11434)
_VSOCK = {"host": 2, "loopback": 1, "hypervisor": 0}
_VSOCK_PORTS = (22, 1024)

CONTROLS = (
    Control("tcp", "a listener in there", {"of": "tcp", "own": "tcp"}),
    Control("udp", "a listener in there", {"of": "udp", "own": "udp"}),
    Control("unix", "an abstract socket in there", {"of": "unix", "own": "unix"}),
)
OF_MACHINE = (
    Control(
        "http", "a web server in there", {"of": "http", "own": "http", "request": "GET / HTTP/1.0\r\n\r\n"}
    ),
    Control("icmp", "its own loopback", {"of": "icmp", "own": "", "host": "127.0.0.1"}, root=True),
    Control("packet", "its own loopback", {"of": "packet", "own": "", "devices": ["lo"]}, root=True),
)


def network(aims: Aims) -> list[Attempt]:
    """Ways to this host for somebody without rights."""
    made = [_tcp("tcp", "127.0.0.1", aims.ports["tcp"])]
    if "tcp-ipv6" in aims.ports:
        made.append(_tcp("tcp-ipv6", "::1", aims.ports["tcp-ipv6"]))
    made.append(_udp("udp", "127.0.0.1", aims.ports["udp"], "text"))
    made.append(Attempt("unix", "network", "abstract socket of the host", "unix", control="unix"))
    made += [_tcp(f"host-{address}", address, aims.ports["tcp"]) for address in aims.addresses]
    return [*made, Attempt("routes", "network", "find a route", "routes")]


def inside(
    own: Sequence[str], gateways: Sequence[str], public: Sequence[Far], model: tuple[str, int]
) -> list[Attempt]:
    """What is tried in a virtual machine that somebody else made, with addresses of its `own`: it may
    have a network, in which only `model` may be reached."""
    made = beyond(own, public)
    made += [
        _tcp(f"gateway-{number}-{port}", host, port)
        for number, host in enumerate(gateways, 1)
        for port in _GATEWAY_PORTS
    ]
    made = [one for one in made if (one.given.get("host"), one.given.get("port")) != model]
    return [
        *(replace(one, control="model") for one in made),
        Attempt("firewall", "network", "read the rules", "default_deny"),
        Attempt("shares", "files", "folders of the host", "shares"),
    ]


def beyond(own: Sequence[str], public: Sequence[Far]) -> list[Attempt]:
    """Ways to what is near and far, where this host has the addresses `own`."""
    made = [_tcp(name, host, port) for name, host, port in _HOSTS if host not in own]
    for name, kind, host, port, question in public:
        made.append(_tcp(name, host, port) if kind == "tcp" else _udp(name, host, port, question))
    made += [
        Attempt("icmp", "network", "echo to 1.1.1.1", "icmp", {"host": "1.1.1.1"}),
        Attempt("name", "network", "look up example.com", "resolve", {"host": "example.com"}),
    ]
    made += [
        Attempt(name, "network", f"datagram to {host} port {port}", "everybody",
                {"host": host, "port": port, "question": question}, "udp")
        for name, host, port, question in _NEAR
    ]  # fmt: skip
    return [*made, *(_vsock(name, cid) for name, cid in _VSOCK.items())]


def _tcp(name: str, host: str, port: int) -> Attempt:
    given = {"host": host, "port": port}
    return Attempt(name, "network", f"TCP {host} port {port}", "tcp", given, "tcp")


def _udp(name: str, host: str, port: int, question: str) -> Attempt:
    given = {"host": host, "port": port, "question": question}
    return Attempt(name, "network", f"UDP {host} port {port}", "udp", given, "udp")


def _vsock(name: str, cid: int) -> Attempt:
    given = {"cid": cid, "ports": _VSOCK_PORTS}
    return Attempt(f"vsock-{name}", "network", f"vsock to {cid}", "vsock", given)


def as_root() -> list[Attempt]:
    """Ways out that need a machine's root, and what it finds in its hardware."""
    made = [
        Attempt("icmp-raw", "network", "echo to 1.1.1.1, by root", "icmp", {"host": "1.1.1.1"}, "icmp"),
        Attempt("icmp-ipv6", "network", "echo to ff02::1, by root", "icmp", {"host": "ff02::1%lo"}, "icmp"),
        Attempt("arp", "network", "a frame on each device", "packet", {}, "packet"),
        Attempt("interfaces", "network", "list network devices", "interfaces"),
        Attempt("firewall", "network", "read the rules inside", "default_deny"),
        Attempt("virtio-ports", "hardware", "list ports to the host", "virtio_ports", {"known": PORTS}),
        Attempt("pci", "hardware", "list devices", "pci"),
        Attempt("disks", "hardware", "list disks", "disks"),
        Attempt("shares", "hardware", "mount a folder of the host", "shares"),
        Attempt("debug-ports", "hardware", "read debugging ports", "debug_ports"),
    ]
    made += [
        Attempt(f"{port}-twice", "hardware", f"open {port} beside its owner", "taken",
                {"path": f"/dev/virtio-ports/{port}"})
        for port in PORTS
    ]  # fmt: skip
    made += [
        Attempt("firmware", "secrecy", "read ACPI, SMBIOS, command line", "firmware"),
        Attempt("configuration", "secrecy", "read QEMU's own files", "configuration"),
        Attempt("memory-map", "secrecy", "read /dev/mem", "physical"),
        Attempt("processes-and-files", "secrecy", "read what the machine was given", "environments"),
    ]
    return [replace(one, root=True) for one in made]


def relay(aims: Aims, port: int) -> list[Attempt]:
    """Requests that the way to the model server refuses, or that do not arrive where they ask to."""

    def post(path: str, name: str) -> Attempt:
        return ask(name, f"POST {path}", _request("POST", path, "Content-Length: 2") + "{}")

    def ask(name: str, tried: str, request: str, **more: object) -> Attempt:
        given = {"host": "127.0.0.1", "port": port, "request": request, **more}
        return Attempt(name, "relay", tried, "http", given, "model")

    def to(name: str) -> str:
        return f"127.0.0.1:{aims.ports[name]}"

    elsewhere = _request("GET", "/v1/models", host=to("host-header"))
    twice = _request("GET", "/v1/models") + _request("POST", "/api/pull", "Content-Length: 2") + "{}"
    both = _request("POST", "/v1/chat/completions", "Content-Length: 4", "Transfer-Encoding: chunked")
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")  # fmt: skip
    return [
        post("/api/pull", "pull"),
        post("/api/create", "create"),
        post("/api/copy", "copy"),
        post("/api/blobs/sha256:0", "blobs"),
        ask("delete", "DELETE /api/delete", _request("DELETE", "/api/delete", "Content-Length: 0")),
        ask("files", "GET /v1/files", _request("GET", "/v1/files")),
        ask("detour", "POST /v1/../api/pull", _request("POST", "/v1/../api/pull", "Content-Length: 0")),
        ask("encoded", "POST /api%2fpull", _request("POST", "/api%2fpull", "Content-Length: 0")),
        ask("query", "GET /v1/models?next=", _request("GET", "/v1/models?next=/api/pull")),
        ask("method", "POST /v1/models", _request("POST", "/v1/models", "Content-Length: 0")),
        ask("absolute", "GET http://elsewhere/", _request("GET", f"http://{to('absolute')}/")),
        ask("connect", "CONNECT elsewhere", _request("CONNECT", to("connect"))),
        ask("host-header", "Host: elsewhere", elsewhere, allowed=True),
        ask("upgrade", "Upgrade: websocket", _request("GET", "/v1/models", *upgrade)),
        ask("second", "a second request behind the first", twice, second=True),
        ask("two-lengths", "Content-Length beside chunks", both + "0\r\n\r\n" + _request("GET", "/api/tags")),
    ]  # fmt: skip


def model(port: int, path: str, host: str = "127.0.0.1") -> Control:
    """The one thing that is to be reached."""
    given = {
        "of": "model",
        "own": "",
        "host": host,
        "port": port,
        "request": _request("GET", path, "Connection: close", host=host),
    }
    return Control("model", f"the model server, GET {path}", given)


def _request(method: str, target: str, *fields: str, host: str = "127.0.0.1") -> str:
    return "\r\n".join((f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""))


_INSIDE = {
    "home": ("files", "list your home"),
    "secrets": ("files", "read secret files"),
    "outside": ("files", "write outside the workspace"),
    "system": ("system", "change the system"),
    "devices": ("system", "open devices"),
    "terminal": ("system", "open your terminal"),
    "see": ("processes", "see a process of the host"),
    "kill": ("processes", "signal it"),
    "trace": ("processes", "trace it"),
    "privileges": ("privileges", "become root, mount, make namespaces"),
    "keys": ("filter", "reach your keyring"),
    "environment": ("environment", "read variables of processes"),
    "processes": ("limits", "start too many processes"),
    "memory": ("limits", "take too much memory"),
    "file_size": ("limits", "write too long a file"),
}
# In a place with a kernel and a system of its own these would only meet what belongs to the place.
_ITS_OWN = frozenset({"system", "privileges", "keys", "memory", "file_size"})


def walls_of_processes(*, apart: bool) -> list[Attempt]:
    """What a wall around a process must hold against. `apart` says that the place has a kernel and a
    system of its own."""
    return [
        Attempt(name, wall, tried, name)
        for name, (wall, tried) in _INSIDE.items()
        if not (apart and name in _ITS_OWN)
    ]
