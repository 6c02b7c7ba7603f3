"""What is up now, over HTTP."""
