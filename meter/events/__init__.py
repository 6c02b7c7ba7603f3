"""Events of transfers, made of the journal's facts, for those who are told."""
