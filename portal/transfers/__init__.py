"""Transfers over HTTP: settled ones, their ladders and recordings."""
