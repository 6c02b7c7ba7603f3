"""HTML pages: rendered with everything escaped, under a policy that lets them load and run nothing.

There is no script, no image and no font; the one style sheet stands in the page, allowed by its hash (CSP Level 3,
section 6.7.3). Addresses of pages hold secrets, so no page is kept, indexed, framed, or told to another site.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

# Contrast, WCAG 2.2 section 1.4.3 (4.5 to 1): #1a1a1a, #555 and #8a1c1c on white, white on #1f4f8f are all above 7.
_STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 44rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 1.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
.who, .hint { color: #555; }
.notice { border: 1px solid #555; border-left: .4rem solid #1f4f8f; padding: .75rem 1rem; margin: 1rem 0; }
.notice h2 { margin-top: 0; }
.wrong { border-left-color: #8a1c1c; }
dl { margin: 0; }
dl div { display: grid; grid-template-columns: minmax(7rem, 12rem) minmax(0, 1fr); gap: 0 1rem; padding: .15rem 0; }
dt { color: #555; }
dd { margin: 0; }
dl.long div { display: block; padding: .4rem 0; }
dl.long dt { color: inherit; font-weight: 600; }
fieldset { border: 1px solid #555; margin: 0; padding: .5rem 1rem; min-width: 0; }
legend, form p > label { font-weight: 600; }
.choice { display: flex; gap: .6rem; align-items: flex-start; padding: .4rem 0; }
.choice input { flex: none; width: 1.25rem; height: 1.25rem; margin: .15rem 0 0; }
textarea { display: block; width: 100%; font: inherit; color: inherit; padding: .5rem; border: 1px solid #555; }
button { font: inherit; padding: .6rem 1.2rem; color: #fff; background: #1f4f8f; border: 1px solid #1f4f8f; }
:focus-visible { outline: 3px solid #1f4f8f; outline-offset: 2px; }
@media (max-width: 24rem) { dl div { display: block; } dd { margin-bottom: .25rem; } }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PACKAGE = "portal.http"


class Pages:
    """The pages of one package, from its folder `templates`; they may extend and include those of `portal.http`."""

    def __init__(self, package: str) -> None:
        self._templates = Environment(
            loader=ChoiceLoader([PackageLoader(package), PackageLoader(_PACKAGE)]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Render a template as a page; every value is escaped."""
        style = Markup(_STYLE)  # noqa: S704 - the constant above
        return HTMLResponse(self._templates.get_template(template).render(values, style=style), status, HEADERS)


_shared = Pages(_PACKAGE)


def message(status: int, title: str, text: str) -> HTMLResponse:
    """A page with one title and one paragraph."""
    return _shared.page("message.html.jinja", status, title=title, text=text)
