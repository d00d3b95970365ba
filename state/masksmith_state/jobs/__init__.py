"""Jobs in Redis: records, shards, leases, reports and events, which only atomic scripts change."""
