"""What a submission sends: weights, statistics, earlier masks, and the job document."""
