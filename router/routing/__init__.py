"""Whom a transfer goes to: which buyer, which endpoints, and a reason for every refusal."""
