"""What a fitted VAE is used for: imputation, denoising, classification, compression, scikit-learn estimators."""
