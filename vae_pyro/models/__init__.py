"""The Pyro programs: priors, posteriors, structures, and the VAE built from one configuration."""
