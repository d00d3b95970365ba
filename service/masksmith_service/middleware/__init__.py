"""ASGI middleware: access log, host and CSRF checks, path prefix, security headers, and limits of request bodies."""
