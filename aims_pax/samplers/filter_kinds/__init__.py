"""The kinds of filters, one file each: NAME.py is `{kind: NAME}` in the filters of a sampler.

A file contains everything about its kind: the settings class (registered under the name, with the user's keys and
`make`) and the filter. No other file has to change for a new kind.
"""

ORDER = (  # order in documentation and messages; others follow, sorted by name
    "equilibration",
    "sanity",
    "duplicates",
    "finite_clusters",
    "farthest_points",
)
