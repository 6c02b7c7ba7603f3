"""The page of a call for which a credit may be asked, as a Jinja2 template."""
