"""Quality of denoising."""
