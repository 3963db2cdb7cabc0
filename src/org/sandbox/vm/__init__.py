"""The machine: a guest of QEMU with no network device, in which commands run."""
