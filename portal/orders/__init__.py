"""Orders and payments over HTTP."""
