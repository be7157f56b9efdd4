"""A function of tensors as a flat graph, compiled by Inductor."""
