"""Roots: directories and prefixes of buckets that jobs may read from and write to; nothing in a root is ever swept."""
