"""Readers of structure files: information that ASE's readers lose is read here, or the file is refused.

`read_images(path)` gives the images of a file as `ase.Atoms` whose `info` holds charge and multiplicity if the file
has them. A file must hold one structure, unless an index chooses: `trajectory.xyz@0`, `@-1` (the last), `@:` (all).
"""

from aims_pax.structure_files.formats import read_images
from aims_pax.structure_files.images import Image, numbered, split_index, unreadable_image

__all__ = ["Image", "numbered", "read_images", "split_index", "unreadable_image"]
