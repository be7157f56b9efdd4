"""Mixed tables compared with the process that made them."""
