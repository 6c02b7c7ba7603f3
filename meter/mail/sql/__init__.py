"""The SQL of e-mail."""
