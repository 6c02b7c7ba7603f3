"""One live transfer: the state machine, and the shell that performs what it decides."""
