"""Structure files as text, small and complete, and what reading them says."""

import pytest

from aims_pax.errors import SettingsError
from aims_pax.systems import read_frame


def at(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def refused(path):
    with pytest.raises(SettingsError) as error:
        read_frame(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def xyz(entries, atoms="O 0 0 0\nH 0 0 0.97\n"):
    return f"{atoms.count(chr(10))}\nProperties=species:S:1:pos:R:3 {entries}\n{atoms}"


def mol(counts="  2  1", charge_code=0, tail=""):
    return (
        f"x\n  y\n\n{counts}  0  0  0  0  0  0  0  0999 V2000\n"
        f"    0.0000    0.0000    0.0000 O   0{charge_code:3d}  0  0  0  0\n"
        "    0.9700    0.0000    0.0000 H   0  0  0  0  0  0\n"
        f"  1  2  1  0\n{tail}M  END\n"
    )


def pdb(*atoms, cell=""):
    """atoms: (record, name in columns 13-16, altloc, residue, occupancy, columns 77-80)."""
    lines = [cell] if cell else []
    for k, (record, name, altloc, residue, occupancy, end) in enumerate(atoms):
        lines.append(
            f"{record:<6}{k + 1:5d} {name:<4}{altloc:1}{residue:>3} A   1    "
            f"{1.5 * k:8.3f}{0:8.3f}{0:8.3f}{occupancy:6.2f}{0:6.2f}          {end}"
        )
    return "\n".join(lines) + "\nEND\n"


def atom(name, residue="GLY", record="ATOM", altloc="", occupancy=1.0, end=""):
    return record, name, altloc, residue, occupancy, end
