"""Files in roots: who may access them, their headers and listings, and the outputs of jobs."""
