"""Facts in; outcomes, money, documents and messages out.

Belongs here: everything that turns the journal of facts into something people are told or billed. The three leaves
`facts.fact`, `facts.outcome` and `telemetry.metrics` import nothing of Baton and may be imported by `router` and
`suppression`; the rest of the package imports neither of those two. SQL lives in `meter.store` alone.
"""
