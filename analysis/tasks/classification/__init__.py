"""Quality of predicted classes."""
