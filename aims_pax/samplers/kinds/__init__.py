"""The kinds of samplers, one file each: NAME.py is `{kind: NAME}` of SAMPLERS.

A file contains everything about its kind: the settings class (registered under the name, with the user's keys, `make`
and `cost`) and the sampler. No other file has to change for a new kind. Importing it must not import torch, because
settings are read without torch.
"""

# order in documentation and messages; others follow, sorted by name
ORDER = (
    "md",
    "aimd",
    "rattle_tree",
    "phonons",
    "diffusion",
    "gpr",
)
