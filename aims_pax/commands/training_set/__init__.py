"""`aims-PAX training-set`: mbe-automation's training sets of molecular crystals."""
