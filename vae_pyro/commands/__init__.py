"""Commands of ``vae-pyro`` that have a file of their own; `vae_pyro.cli` names them."""
