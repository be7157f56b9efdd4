"""Searches over settings by the ELBO of validation data, shared by processes and continued after an interruption."""
