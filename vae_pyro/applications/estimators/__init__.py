"""A VAE as scikit-learn estimators: `VAETransformer` to its latents, `VAEImputer` of missing elements.

Both accept NaN for unobserved elements, and work in a ``Pipeline`` or ``GridSearchCV``. ``import vae_pyro`` does not
load scikit-learn.
"""
