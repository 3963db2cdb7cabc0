"""Tools that participants may call."""
