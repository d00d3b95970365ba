"""The clients' operations, as coroutines; their session does the I/O, blocking or with asyncio."""
