"""Recordings of transfers over HTTP."""
