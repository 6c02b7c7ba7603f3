"""Webhooks: events sent to buyers' HTTPS endpoints."""
