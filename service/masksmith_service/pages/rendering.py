"""Renders the HTML templates, with filters for numbers, shapes and times, and the content security policy of pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from masksmith_wire.quantities import count_text, duration_text, size_text
from masksmith_wire.text import printable

POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
}
"""The policy of pages; the middleware adds the other security headers, which all responses have."""
DASH = "\N{EN DASH}"
"""Text that filters show for a value that is absent."""


def render(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """Render a page, with a header that forbids external resources and inline scripts.

    The addresses of the page's links are relative, so that they work below any path prefix of a proxy.
    """
    page = _environment.get_template(template).render(context, root=path_to_root(request))
    return HTMLResponse(page, status, POLICY)


def path_to_root(request: Request) -> str:
    """Return the address of the installation's root, relative to the request's path."""
    path = request.scope.get("raw_path") or request.url.path.encode()
    depth = path.split(b"?")[0].count(b"/") - 1
    return "../" * depth or "./"


def share(value: float | None) -> str:
    """Format a share as a percentage."""
    return DASH if value is None else f"{100 * value:.2f} %"


def points(value: float | None) -> str:
    """Format a difference of shares in percentage points."""
    return DASH if value is None else f"{100 * value:+.2f}".replace("-", "\N{MINUS SIGN}")


def gap(value: float | None) -> str:
    """Format a relative optimality gap; `0` only if it is exactly 0."""
    return DASH if value is None else "0" if value == 0 else f"{value:.1e}"


def seconds(value: float | None) -> str:
    """Format a duration."""
    return DASH if value is None else duration_text(value)


def size(value: float | None) -> str:
    """Format a number of bytes."""
    return DASH if value is None else size_text(value)


def shape(lengths: Sequence[int]) -> str:
    """Format a shape."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, lengths))


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Format the time since a moment; a moment less than 5 s ago, or in the future, is `just now`."""
    past = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if past >= length:
            return f"{past // length:.0f} {unit} ago"
    return "just now" if past < 5 else f"{past:.0f} s ago"


def utc(moment: datetime) -> str:
    """Format a moment in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def exact(text: str) -> Markup:
    """Exempt a text, which a script reads and which is not shown, from `_escape_unprintable`."""
    return escape(text)


def _escape_unprintable(value: Any) -> Any:
    """Replace control characters and direction marks (which reorder text) by escapes; `Markup` is not changed."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_environment = Environment(
    loader=PackageLoader(__package__, "templates"),
    autoescape=True,
    finalize=_escape_unprintable,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["number"] = count_text
_environment.filters |= {
    function.__name__: function for function in (share, points, gap, seconds, size, shape, ago, utc, exact)
}
