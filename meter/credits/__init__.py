"""Credits: requests, review, decisions (domain, section 8)."""
