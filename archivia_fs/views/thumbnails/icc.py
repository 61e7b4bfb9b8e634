"""Colour profiles that littleCMS cannot make by itself, as bytes.

Owns: ICC profiles of RGB spaces given by their primaries (ICC.1:2001-04, "matrix/TRC"). Used by: worker. Threading: pure.
Previews of cameras say "Adobe RGB" by a tag and carry no profile; shown as sRGB they look pale.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from archivia_fs.views.thumbnails.ifd import ColourSpace

Xyz = tuple[float, float, float]

D50: Xyz = (0.9642, 1.0, 0.8249)
# (red, green, blue, gamma), primaries adapted to D50: Adobe RGB (1998) Color Image Encoding, annex; ROMM RGB is ISO 22028-2.
_SPACES: Mapping[ColourSpace, tuple[Xyz, Xyz, Xyz, float]] = {
    ColourSpace.ADOBE_RGB: (
        (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), 563 / 256,
    ),
    ColourSpace.PROPHOTO: ((0.79767, 0.28804, 0.0), (0.13519, 0.71187, 0.0), (0.03134, 0.00009, 0.82491), 1.8),
}  # fmt: skip


def profile(space: ColourSpace) -> bytes | None:
    """The profile of a space; None for sRGB and what is treated as it."""
    if space not in _SPACES:
        return None
    red, green, blue, gamma = _SPACES[space]
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256)) + bytes(2)
    name = space.name.encode() + b"\0"
    description = struct.pack(">4sII", b"desc", 0, len(name)) + name + bytes(78)
    tags = {
        b"desc": description + bytes(-len(description) % 4), b"cprt": b"text" + bytes(8), b"wtpt": _xyz(D50),
        b"rXYZ": _xyz(red), b"gXYZ": _xyz(green), b"bXYZ": _xyz(blue),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    at = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        table += struct.pack(">4sII", tag, at + len(data), len(value))
        data += value
    head = struct.pack(">I4sI4s4s4s", at + len(data), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(D50)
    return head.ljust(128, b"\0") + table + data


def _xyz(value: Xyz) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(value)


def _fixed(value: Xyz) -> bytes:
    """s15Fixed16Number."""
    return struct.pack(">3i", *(round(each * 65536) for each in value))
