"""The HTTP API on a real store: every route, who may use it, its pages, its streams, its description."""
