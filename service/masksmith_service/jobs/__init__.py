"""Jobs: asked for, planned, recorded, followed, and their results."""
