"""Diffusion models of atomistic structures: learn the distribution of structures, and sample new ones.

atoms_graph      structures as the model sees them: types, positions, cell, fixed atoms, confinement
noise_kernels    wrapped and reflected normal distributions: samples, densities, scores
noisers          Positions, CellPositions, ConfinedCellPositions, Types: how a structure is noised, and the prior
noise_schedule   noise levels of training and sampling (`ve`, `vp`)
score_network    an equivariant network of 60 000 parameters
denoiser         the network with EDM preconditioning and its loss
reverse_process  from the prior to a structure: Heun, Euler–Maruyama, DDIM, predictor–corrector
"""
