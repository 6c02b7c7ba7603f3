"""Webhooks: what is posted to buyers' HTTPS endpoints."""
