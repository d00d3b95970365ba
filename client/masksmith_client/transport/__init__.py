"""HTTP transport: calls, sessions with retries, blocking and asyncio drivers, event streams."""
