"""The portal's own health, over HTTP."""
