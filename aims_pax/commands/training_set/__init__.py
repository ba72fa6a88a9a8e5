"""`aims-PAX training-set`: makes training sets of molecular crystals, as mbe-automation does."""
