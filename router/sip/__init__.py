"""The SIP engine: `port` is what the router sees; `engine` drives pjsua2. Tests have another on a virtual clock.

pjsua2 is imported here alone, and only when an engine is made: every command but `serve`, `router` and `demo` works
without it.
"""
