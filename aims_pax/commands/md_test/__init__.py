"""`aims-PAX test --md`: is a model fit for MD? Trajectories, checks against the reference, and the page of results."""
