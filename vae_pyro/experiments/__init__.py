"""Experiments: every combination of objective, grid value and seed as a run folder of its own, on the same data."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:  # the former folder exported these names itself
    from vae_pyro.core.renamed import exported_above

    __getattr__ = exported_above(__name__)
