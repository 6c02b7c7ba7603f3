"""Letters that need what was settled: the lead of a failed transfer, the heads of the chains."""
