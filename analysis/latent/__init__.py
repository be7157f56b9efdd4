"""Information in the latent variables, their structure, disentanglement."""
