"""What every request passes: access log, host checks, limits on bodies."""
