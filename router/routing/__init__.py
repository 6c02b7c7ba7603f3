"""Routing: selects the buyer and the endpoints of a transfer, with a reason for every refusal."""
