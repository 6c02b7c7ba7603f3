"""Suppression: reads lists of phone numbers and decides which numbers must not be transferred to which buyer.

Belongs here: reading lists, keeping them as files that prove themselves, and looking numbers up in them. What the store
knows of them comes through `suppression.ports`; of `meter` and `router` nothing is imported.
"""
