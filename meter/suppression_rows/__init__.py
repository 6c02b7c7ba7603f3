"""The rows of suppression lists: versions, changes made by hand, exemptions, the log."""
