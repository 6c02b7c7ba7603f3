"""Events of transfers over HTTP."""
