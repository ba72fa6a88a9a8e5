"""Training and dynamics in separate processes, and the number of cores for each."""
