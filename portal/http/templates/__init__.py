"""The pages of the portal, as Jinja2 templates."""
