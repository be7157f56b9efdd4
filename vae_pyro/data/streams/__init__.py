"""Data that are not in memory: read block by block from where they are kept, ahead of the step that needs them."""
