"""`aims-PAX gpr train.in`: train, test and augment with a Gaussian process, driven by one input file."""
