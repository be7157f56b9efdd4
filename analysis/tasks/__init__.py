"""Quality of imputation, denoising and classification."""
