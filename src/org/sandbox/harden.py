"""The rules of a firewall for a machine that somebody has already, with another program than ours: nothing
but the model server can be reached from it. Pure."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from org.errors import UsageError

SSH = 22
# What ufw itself lets out whatever its defaults are: a ping carries bytes too.
_PING6 = "sed -i '/^-A ufw6-before-output .*echo-request/s/^/# /' /etc/ufw/before6.rules"


def rules(model_host: str, model_port: int, ssh_from: str = "") -> tuple[str, ...]:
    """Commands for ufw, in their order: nothing goes in or out but over the loopback device, to the model
    server (an address; one of the loopback needs no rule) and, with `ssh_from` (an address or a network),
    from there to the SSH server. Raises `UsageError`."""
    try:
        server = ip_address(model_host)
    except ValueError as error:
        raise UsageError(
            f"the model server needs an address, for a firewall knows no names: {model_host}",
            "`--model 10.0.2.2:11434`",
        ) from error
    if not 0 < model_port < 65536:
        raise UsageError(f"no port: {model_port}")
    wanted = ["ufw --force reset", _PING6]  # a reset brings back the file that the other changes
    wanted += [f"ufw default deny {way}" for way in ("incoming", "outgoing", "routed")]
    if not server.is_loopback:
        wanted.append(f"ufw allow out to {server} port {model_port} proto tcp")
    if ssh_from:
        try:
            network = ip_network(ssh_from)
        except ValueError as error:
            raise UsageError(f"no address and no network: {ssh_from}", "`--ssh 10.0.2.2`") from error
        wanted.append(f"ufw allow in from {network} to any port {SSH} proto tcp")
    return (*wanted, "ufw --force enable")


def script(commands: tuple[str, ...]) -> str:
    """What does it, to be read and run there as root."""
    lines = [
        "#!/bin/sh",
        "# Nothing goes in or out of this machine but what stands below. Rules that ufw had are set aside",
        "# in /etc/ufw. `ufw disable` undoes it; `org doctor --inside` tries what holds.",
        "set -e",
        "command -v ufw >/dev/null || { echo 'there is no ufw: install it first' >&2; exit 7; }",
        *commands,
        "ufw status verbose",
    ]
    return "\n".join(lines) + "\n"
