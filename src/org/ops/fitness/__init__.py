"""The gate: whether a candidate may become main."""
