"""Everything the clients do, written once: generators that yield effects, executed by a blocking or asyncio driver."""
