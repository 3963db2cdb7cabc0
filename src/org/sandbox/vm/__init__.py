"""A machine of one's own for commands: image, QEMU, and the ports between host and guest."""
