"""Makes potentials from the settings: models, foundation models, built-in calculators and the user's own."""
