"""Models behind `/v1/chat/completions`."""
