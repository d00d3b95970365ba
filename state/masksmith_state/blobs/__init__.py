"""Blobs: uploads and results in a directory or a bucket, who refers to them, and when they are deleted."""
