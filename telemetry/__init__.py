"""Metrics and logs of a running Baton."""
