"""The kinds of samplers, one file each: NAME.py is `{kind: NAME}` of SAMPLERS.

A file holds everything about its kind: the settings class, registered under the name, with the keys a user writes,
`make` and `cost`; and the sampler. Nothing else has to know of it. Importing one loads no torch: settings are read
without.
"""

ORDER = (
    "md",
    "aimd",
    "rattle_tree",
    "phonons",
)  # as documentation and messages list them; others follow by name
