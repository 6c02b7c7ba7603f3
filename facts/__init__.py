"""What happened: the kinds of facts, what a transfer came to by them, and values that cross between packages."""
