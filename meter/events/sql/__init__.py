"""The SQL of the followers of the journal."""
