"""The book's SQL."""
