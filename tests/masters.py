"""Masters for tests: what comes out of a camera.

No package was found that ships a camera's own DNG or other raw file (PyPI, npm and Debian, 2026-11): libraries for raw files and
EXIF come without samples. So the project makes its own DNGs, with previews inside and raw data that LibRaw develops; where real
files lie beside the checkout, in ../shared/samples, those are used too. The head of a test run says which.

Owns: nothing. Used by: the tests that copy whole rolls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.views.pictures import dng, jpeg

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"


def real_masters() -> Sequence[Path]:
    """The cameras' own files, if they are here."""
    return sorted([*SAMPLES.glob("*.dng"), *SAMPLES.glob("*.arw")])


def masters() -> Mapping[str, bytes]:
    """By file name: DNGs made here of 40 kB to 20 MB, and the real ones."""
    made = {
        "made-thumbnail.dng": dng(previews=[jpeg(256, 192)], raw=(160, 120)),
        "made-preview.dng": dng(
            order=">", previews=[jpeg(256, 192), jpeg(1600, 1200)], raw=(2600, 1900), orientation=6
        ),
        "made-big.dng": dng(previews=[jpeg(1600, 1200)], raw=(3900, 2600)),
    }
    return {name: file.whole() for name, file in made.items()} | {
        path.name: path.read_bytes() for path in real_masters()
    }
