"""Inference gaps: the loss of amortized variational inference, and its parts."""
