"""The per-minute service: interactions, ratings, service levels, daily reports (domain, section 9)."""
