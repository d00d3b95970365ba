"""What the clients do, written once; a session's driver does the I/O, blocking or with asyncio."""
