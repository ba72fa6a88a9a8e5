"""The stages of a run with their environments: initial dataset, active learning, convergence, label lists."""
