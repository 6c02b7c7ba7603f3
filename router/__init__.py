"""A live transfer: SIP legs in, facts out.

Belongs here: admission, selection, the transfer machine and its shell, and under `router.sip` the SIP engine. What
the router needs of the store or of suppression it declares as protocols in `router.ports`; it knows no SQL, no money,
no mail.
"""
