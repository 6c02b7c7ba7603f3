"""Messages that leave, at least once: their rows, and one delivery loop per channel."""
