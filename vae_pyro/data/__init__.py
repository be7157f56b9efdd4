"""Reading data, splits, observation (binarization, dequantization), streams."""
