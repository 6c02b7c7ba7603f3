"""The project's benchmark: `make bench`, or `python -m bench --help` for one part of it at a time.

Each part starts what it needs on loopback (`baton serve`, SIPp, a mail sink, a packet capture, an Asterisk to compare
with), and judges Baton by the books of those other programs, never by Baton's alone. It prints a table and writes the
same rows as JSON. Nothing here is a test: speed belongs to the machine it was measured on, so the tests cover only the
arithmetic (`stats`) and the reading of other programs' files (`sipp`, `capture`).

    rows, stats             what a measurement is, and how many become one
    scenarios, sipp         SIPp's parties, and its books
    stage, store, proc      Baton as it is served, its database, its processes
    peer                    Asterisk in a folder of its own
    pairs, soak, buffer, crash    the measurements
"""
