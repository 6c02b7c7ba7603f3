"""Typed settings of the processes; examples, dashboards, alerts, unit files and samples.

Belongs here: what the operator configures, as typed values without behaviour, and `baton check`. It imports `book`
alone; `baton` imports it, and `portal` for its own section.
"""
