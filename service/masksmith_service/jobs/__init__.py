"""Jobs: submission, planning, documents, events and results."""
