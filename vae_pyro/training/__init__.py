"""`fit`: configuration, loop, schedules, progress, warm starts, ensembles."""
