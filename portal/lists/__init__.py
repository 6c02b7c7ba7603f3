"""Suppression lists over HTTP."""
