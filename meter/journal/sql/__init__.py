"""The journal's SQL."""
