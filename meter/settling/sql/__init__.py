"""The SQL of settling."""
