"""Facts in; outcomes, money, documents and messages out.

Belongs here: everything that turns the journal of facts into something people are told or billed, in a room for each
noun. It imports neither `router` nor `suppression`. SQL stands in `meter.store`, and in a room's `sql`, `rows` or
`tables`.
"""
