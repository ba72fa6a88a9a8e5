"""The kinds of filters, one file each: NAME.py is `{kind: NAME}` in the filters of a sampler.

A file holds everything about its kind: the settings class, registered under the name, with the keys a user writes and
`make`; and the filter. Nothing else has to know of it.
"""

ORDER = (  # as documentation and messages list them; others follow by name
    "equilibration",
    "sanity",
    "duplicates",
    "finite_clusters",
    "farthest_points",
)
