"""Training of the guide alone, for a model that stays as it is."""
