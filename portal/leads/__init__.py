"""Leads that dialers post before their calls."""
