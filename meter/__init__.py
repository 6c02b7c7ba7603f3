"""Facts in; outcomes, money, documents and messages out.

Belongs here: everything that turns the journal of facts into something people are told or billed. The three leaves
`meter.facts`, `meter.outcome` and `meter.metrics` import nothing of Baton and may be imported by `router` and
`suppression`; the rest of the package imports neither of those two. SQL lives in `meter.store` alone.
"""
