"""Leads that dialers post, and whether a buyer can be served."""
