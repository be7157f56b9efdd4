"""Information in the latent variables: rate and distortion, used latents, aggregate posterior, layers."""
