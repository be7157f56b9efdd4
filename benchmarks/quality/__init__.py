"""Test log p(x) of the IWAE protocol, compared with published results."""
