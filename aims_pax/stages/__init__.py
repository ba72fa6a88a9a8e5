"""The stages of a run and what they need of the world: initial dataset, active learning, convergence, label lists."""
