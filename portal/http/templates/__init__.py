"""What all pages of the portal share, as Jinja2 templates: the frame, and a page that says one thing."""
