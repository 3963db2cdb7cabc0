"""A machine of one's own for commands: image, QEMU, and the ports between host and guest."""

GUEST_FILES = (
    *("agent.py", "boot.py", "channels.py", "child.py", "daemons.py", "family.py", "frames.py", "groups.py"),
    *("guest_relay.py", "hosts.py", "jobs.py", "loop.py", "orders.py", "passing.py", "places.py"),
    *("running.py", "streams.py", "warm.py"),
)
"""What of this package runs in the guest, all in one folder there."""
