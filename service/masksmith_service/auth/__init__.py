"""Authentication: keys, sessions, and what a principal may see."""
