"""Time and memory of a training step against its size, one axis at a time."""
