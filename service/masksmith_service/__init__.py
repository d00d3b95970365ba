"""The HTTP service: uploads, jobs, events, results and web pages."""
