"""From settings to a room: the only place that picks classes."""
