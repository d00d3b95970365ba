"""The clients' operations, as coroutines; a session's driver does the I/O, blocking or with asyncio."""
