"""The per-minute service over HTTP: interactions, ratings, daily reports."""
