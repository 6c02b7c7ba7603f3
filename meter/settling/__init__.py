"""From a closing fact to a unit: settling, replay, and whether both still agree."""
