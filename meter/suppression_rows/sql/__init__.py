"""The SQL of suppression lists."""
