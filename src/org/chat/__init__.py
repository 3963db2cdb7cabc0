"""The room and those who speak in it; knows models, sandboxes and journals only through ports."""
