"""Roots: directories and prefixes of buckets that jobs may read and write; retention deletes nothing in a root."""
