"""The SQL of those who follow the journal."""
