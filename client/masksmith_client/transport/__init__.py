"""HTTP transport: calls, blocking and asyncio sessions with retries, event streams."""
