"""Gaussian processes for energies and forces: trained in seconds on 5 to 100 structures, with their own uncertainty.

SOAP descriptors and their derivatives (`soap`), the sparse sum-of-atoms process on them (`sparse_process`), inverse
distances and Cartesian coordinates (`dense_process`), and one object for all of them, `process.GaussianProcess`.
"""
