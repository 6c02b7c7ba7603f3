"""Typed settings, the book's value types, the reference file, examples, dashboards, alerts and samples.

Belongs here: what a person configures, as typed values without behaviour. Every other package may import it; it imports
none of them.
"""
