"""The SQL of credits."""
