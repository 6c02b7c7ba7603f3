"""The arithmetic of money, pure: calendar, units, the weekly cycle, minutes, what a document says."""
