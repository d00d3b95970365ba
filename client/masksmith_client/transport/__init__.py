"""HTTP: requests as values, effects that blocking and asyncio drivers execute, retries, events."""
