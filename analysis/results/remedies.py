"""Remedies that several verdicts name: each is a command and a call."""

REFIT = "refit the guide on draws of the model (vae-pyro refit, vae_pyro.refit_guide)"
"""The model stays as it is, to the bit."""
REFINE = "draw single posteriors by importance or annealing (vae-pyro posterior, analysis.posterior_draws)"
"""For few data that matter, whatever the guide."""
