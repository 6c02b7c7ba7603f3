"""The pages of an interaction and of its rating, as Jinja2 templates."""
