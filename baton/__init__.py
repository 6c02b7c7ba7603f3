"""The executable: command line, composition root, supervisor, demo.

Belongs here: wiring. It alone may import every other package; nothing imports it. Whatever decides something lives in
the package whose business it is.
"""

__version__ = "0.1.0"
