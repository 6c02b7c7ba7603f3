"""A second bookkeeper, and a year for the first one to keep the books of."""
