"""What programs read from outside of their arguments and parameters: found, compared, and put back."""
