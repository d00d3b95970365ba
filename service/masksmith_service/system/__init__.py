"""The installation itself: health, discovery, metrics, OpenAPI."""
