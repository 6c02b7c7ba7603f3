"""Transfers over HTTP: settled ones, and their ladders."""
