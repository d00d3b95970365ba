"""Which scopes allow a request, by method and path; the request's key needs one of them."""

from __future__ import annotations

import re

from masksmith_service.middleware.host_checks import SAFE_METHODS
from masksmith_state.keys import Scope

_ANY = tuple(Scope)
# Each rule: a regular expression of `METHOD PATH`, and the scopes that allow the request. The first rule that matches
# applies.
_RULES: tuple[tuple[str, tuple[Scope, ...]], ...] = (
    (r"\w+ /(v1/(patterns|solvers|kernels|session)|login|pattern|favicon\.ico|openapi\.json)?", _ANY),
    (r"\w+ /static/.*", _ANY),
    (r"\w+ /(v1/(keys|workers)(/.*)?|metrics)", (Scope.ADMINISTER,)),
    (r"\w+ /v1/tensors/.*", (Scope.SUBMIT,)),
    # `jobs.routes` checks which of the two scopes the document needs.
    (r"POST /v1/jobs", (Scope.SUBMIT, Scope.BENCHMARK)),
    (r"POST /(v1/)?jobs/[^/]*/cancel", (Scope.SUBMIT, Scope.BENCHMARK)),
    (r"DELETE /v1/jobs/[^/]*", (Scope.SUBMIT, Scope.BENCHMARK)),
)
_COMPILED = tuple((re.compile(pattern), scopes) for pattern, scopes in _RULES)


def accepted_scopes(method: str, path: str) -> tuple[Scope, ...]:
    """Return the scopes that allow a request; if no rule matches, `read` for safe methods, else `submit`."""
    for pattern, scopes in _COMPILED:
        if pattern.fullmatch(f"{method} {path}"):
            return scopes
    return (Scope.READ,) if method in SAFE_METHODS else (Scope.SUBMIT,)
