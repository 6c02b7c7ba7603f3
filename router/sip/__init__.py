"""The SIP engine: `port` is what the router sees; `engine` drives pjsua2; `memory` is the same on a virtual clock.

pjsua2 is imported here alone, and only when an engine is made: every command but `serve`, `router` and `demo` works
without it.
"""
