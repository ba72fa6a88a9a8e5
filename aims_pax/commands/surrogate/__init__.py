"""Searches on a Gaussian process that learns from few calls of the reference: `aims-PAX neb`, `relax`, `md`."""
