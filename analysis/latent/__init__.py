"""What do the latent variables carry?"""
