"""Blobs: storage of uploads and results in a directory or a bucket, reference tracking, and retention."""
