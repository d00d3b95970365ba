"""ASGI middleware: access log, host and CSRF checks, and limits of request bodies."""
