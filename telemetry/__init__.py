"""Metrics and logs: what a running Baton tells about itself."""
