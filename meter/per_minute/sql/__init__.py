"""The SQL of the per-minute service."""
