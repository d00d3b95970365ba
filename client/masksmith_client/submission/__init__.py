"""Prepare jobs for submission: read and select weights, read statistics and previous masks, upload them."""
