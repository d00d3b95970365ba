"""Results of jobs: masks and updated weights as mappings, applying masks to a model, comparing masks."""
