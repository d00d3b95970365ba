"""The installation: discovery, health checks, metrics and the OpenAPI document."""
