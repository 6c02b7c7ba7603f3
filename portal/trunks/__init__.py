"""The trunks over HTTP."""
