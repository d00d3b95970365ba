"""Jobs in Redis: plans, shards, leases and reports, changed by atomic scripts alone."""
