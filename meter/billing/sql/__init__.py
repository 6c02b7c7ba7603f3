"""The SQL of billing: weeks, months, documents, payments."""
