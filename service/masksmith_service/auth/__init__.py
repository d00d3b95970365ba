"""Authentication by keys and sessions, and authorization of principals."""
