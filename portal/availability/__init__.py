"""Whether a buyer would take a call, over HTTP."""
