"""Statistical functions of arrays."""
