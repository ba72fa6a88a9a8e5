"""Structure files of every format but FHI-aims' own: what ASE's readers lose is read here, or refused.

`read(path)` gives the images of a file as `ase.Atoms` whose `info` holds charge and multiplicity where the file says
them. One file, one structure, unless the caller chooses: `trajectory.xyz@0`, `@-1` (the last), `@:` (all).
"""

from aims_pax.structure_files.formats import read_images
from aims_pax.structure_files.images import Image, numbered, split_index, unreadable_image

__all__ = ["Image", "numbered", "read_images", "split_index", "unreadable_image"]
