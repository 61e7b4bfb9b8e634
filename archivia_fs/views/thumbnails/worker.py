"""The process that decodes: bytes in, JPEGs out, nothing else within reach.

Owns: what a preview looks like (upright, sRGB, at most 1200x1200, quality 85). Used by: pool, which starts `main` in a new
interpreter. Threading: one thread. It loads all it needs, locks itself down (sandbox), says hello, and answers one job after
another until its socket is closed.

A message is a header of two 32-bit lengths, JSON, and bytes. A job's picture comes as a descriptor of a memfd beside its header.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing  # noqa: F401 - rawpy imports it when it is first used, and then no file can be opened any more
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import rawpy
from PIL import Image, ImageCms, UnidentifiedImageError

from archivia_fs.views.thumbnails import PIXELS_MAX, SIDES, icc, sandbox
from archivia_fs.views.thumbnails.failures import Failure
from archivia_fs.views.thumbnails.ifd import ColourSpace

QUALITY = 85
DRAFT = (
    SIDES[-1] * 5 // 4,
    SIDES[-1] * 5 // 4,
)  # JPEGs are scaled by 1/2, 1/4, 1/8 while they are decoded, not below that
FILTER = Image.Resampling.HAMMING  # as sharp as bicubic when scaling down; 24 ms from 1600 to 1200 pixels, Lanczos 51
MEMORY = 3 * 1024**3 // 2  # bytes of address space beyond the file itself; 150 megapixels of raw data need half of it
CPU_SECONDS = 20
FILES = 16  # descriptors
JPEG_PIXELS_MAX = 500_000_000  # these are scaled down while they are decoded
ENOUGH = 1000  # pixels of the longer side: a preview inside a raw file that is as large is taken
LIBRAW_MIN = (0, 22, 2)  # older ones write beyond their buffers on crafted DNGs (CVE-2026-21413 and others)
FILE_MAX = 2**31  # bytes of a file that is handed over as a whole; LibRaw takes no larger one
_INTEROPERABILITY = 0xA005  # the Exif directory with the "R03" of Adobe RGB
_PHOTOMETRIC = 262
_ORIENTATION = 274
_MAKE, _MODEL, _DATE, _EXIF, _DATE_TAKEN = 271, 272, 306, 34665, 36867
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
Facts = dict[str, str | int]
HEADER = struct.Struct(">II")
FORMATS = {
    "jpeg": ("JPEG",), "png": ("PNG",), "webp": ("WEBP",), "tiff": ("TIFF",), "heif": ("HEIF", "AVIF"),
}  # fmt: skip


def main(descriptor: int) -> None:
    """Serve jobs on the socket with this number."""
    channel = socket.socket(fileno=descriptor)
    try:
        hello, memory = start()
    except Exception as error:  # noqa: BLE001 - the gateway shall hear of whatever it is
        send(channel, {"error": words(error)})
        return
    send(channel, hello)
    while (received := receive(channel)) is not None:
        job, picture = received
        with open(picture, "rb") as file:  # noqa: PTH123 - a descriptor
            sandbox.limit_job(memory + os.fstat(picture).st_size, CPU_SECONDS)
            answer: dict[str, Any]
            try:
                made, facts = decode(job, file)
                answer, body = {"sizes": [len(each) for each in made], "facts": facts}, b"".join(made)
            except Exception as error:  # noqa: BLE001 - decoders raise anything
                answer, body = {"error": words(error), "failure": failure(error)}, b""
        send(channel, answer, body)


def start() -> tuple[dict[str, Any], int]:
    """Load the decoders, use each once (they load the rest then), and lock the door. Returns who we are, and how many bytes of
    address space a job may have beside its file."""
    os.nice(5)
    with contextlib.suppress(OSError):  # if the machine runs out of memory, this process goes, and not the gateway
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
    except ImportError:  # without this library HEIC pictures get the placeholder
        pass
    Image.init()
    warm = io.BytesIO()
    Image.new("RGB", (8, 8)).save(warm, "JPEG")
    decode({"kind": "jpeg", "orientation": 6, "colour_space": ColourSpace.ADOBE_RGB}, warm)
    with contextlib.suppress(rawpy.LibRawError, Refused):
        decode({"kind": "raw", "orientation": 0, "colour_space": 0}, io.BytesIO(b"II*\0" + bytes(100)))
    memory = sandbox.address_space() + MEMORY
    sandbox.limit(memory + FILE_MAX, FILES)
    layers = ["rlimits", *sandbox.lock_down()]
    return {"layers": layers, "no_raw": no_raw()}, memory


def no_raw() -> str:
    """Why this LibRaw gets no file; "" if it does."""
    if tuple(rawpy.libraw_version) >= LIBRAW_MIN:
        return ""
    found, wanted = (".".join(map(str, version)) for version in (rawpy.libraw_version, LIBRAW_MIN))
    return f"Raw data are not developed: LibRaw {found} has known holes; install a rawpy with {wanted} or newer."


class Refused(Exception):
    """What we do not even try."""

    def __init__(self, message: str, why: Failure) -> None:
        super().__init__(message)
        self.why = why


def failure(error: Exception) -> Failure:
    """The word for whatever a decoder raised."""
    if isinstance(error, Refused):
        return error.why
    if isinstance(error, (MemoryError, rawpy.LibRawUnsufficientMemoryError)):
        return Failure.MEMORY
    if isinstance(error, Image.DecompressionBombError):
        return Failure.LIMITS
    if isinstance(error, (UnidentifiedImageError, rawpy.LibRawFileUnsupportedError, KeyError, NotImplementedError)):
        return Failure.UNSUPPORTED
    return Failure.CORRUPT


def decode(job: Mapping[str, Any], file: BinaryIO) -> tuple[Sequence[bytes], Facts]:
    """A JPEG per side of SIDES, and what the picture says of itself. Raises whatever Pillow and LibRaw do."""
    if job["kind"] == "raw":
        image, size = _develop(file)
        facts: Facts = {"make": "", "model": "", "taken": "", "width": size[0], "height": size[1]}
    else:
        Image.MAX_IMAGE_PIXELS = (
            JPEG_PIXELS_MAX if job["kind"] == "jpeg" else PIXELS_MAX
        ) // 2  # an error at twice that
        image = Image.open(file, formats=FORMATS[job["kind"]])
        facts = _facts(image)
    return _shrink(image, int(job["orientation"]), ColourSpace(job["colour_space"])), facts


def _facts(image: Image.Image) -> Facts:
    exif = image.getexif()
    texts = {"make": exif.get(_MAKE), "model": exif.get(_MODEL)}
    texts["taken"] = exif.get_ifd(_EXIF).get(_DATE_TAKEN) or exif.get(_DATE)
    found: Facts = {name: text.partition("\0")[0] if isinstance(text, str) else "" for name, text in texts.items()}
    return found | {"width": image.width, "height": image.height}


def _develop(file: BinaryIO) -> tuple[Image.Image, tuple[int, int]]:
    """The JPEG in a raw file if it is large enough, else the raw data, at half size where that is enough; and the size of these."""
    if no_raw():
        raise Refused(no_raw(), Failure.UNSUPPORTED)
    with rawpy.RawPy() as raw:
        raw.open_buffer(file)
        sizes = raw.sizes
        if sizes.raw_width * sizes.raw_height > PIXELS_MAX:
            raise Refused(f"{sizes.raw_width} x {sizes.raw_height} pixels are more than {PIXELS_MAX}", Failure.LIMITS)
        with contextlib.suppress(rawpy.LibRawError, OSError):
            inside = raw.extract_thumb()
            if inside.format is rawpy.ThumbFormat.JPEG:
                image = Image.open(io.BytesIO(bytes(inside.data)), formats=FORMATS["jpeg"])
                if max(image.size) >= ENOUGH:
                    image.draft(None, DRAFT)
                    image.load()  # it may be broken, and then the raw data are not
                    return image, (sizes.width, sizes.height)
        half = max(sizes.iwidth, sizes.iheight) >= 2 * SIDES[-1]
        developed = raw.postprocess(use_camera_wb=True, half_size=half, output_bps=8)
        return Image.fromarray(developed), (sizes.width, sizes.height)


def _shrink(image: Image.Image, orientation: int, space: ColourSpace) -> Sequence[bytes]:
    exif = image.getexif()
    if space is ColourSpace.UNKNOWN and exif.get_ifd(_INTEROPERABILITY).get(1) == "R03":
        space = ColourSpace.ADOBE_RGB  # DCF 2.0, "optional file"
    profile = image.info.get("icc_profile") or icc.profile(space)
    image.draft(None, DRAFT)
    image = _eight_bits(image)
    image.thumbnail((SIDES[-1], SIDES[-1]), FILTER, reducing_gap=1.5)
    image = _srgb(image, profile)
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    elif orientation == 0:
        image = _upright(image, exif)
    made = []
    for side in reversed(SIDES):
        image.thumbnail((side, side), FILTER)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY, exif=b"", icc_profile=None)
        made.append(buffer.getvalue())
    return made[::-1]


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits and floats are scaled, not cut off; palettes become colours that can be averaged."""
    if image.mode in ("P", "PA", "1"):
        return image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if not image.mode.startswith(("I", "F")):
        return image
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]
    values = numpy.nan_to_num(_averaged(image), posinf=0.0, neginf=0.0)
    low, high = (0.0, 65535.0) if image.mode.startswith("I") else (0.0, 1.0)
    if not low <= float(values.min()) <= float(values.max()) <= high:
        low, high = float(values.min()), float(values.max())
    scaled = ((values - low) * (255.0 / max(high - low, 1e-9))).clip(0, 255).astype("u1")
    return Image.fromarray(255 - scaled if white_is_zero else scaled)


def _averaged(image: Image.Image) -> numpy.ndarray[Any, Any]:
    """The pixels of one channel as floats, about twice as many as a preview needs, and never more than some rows at once beside
    the image itself."""
    step = max(1, max(image.size) // (2 * SIDES[-1]))
    width, height = (max(1, side // step) for side in image.size)
    rows = numpy.empty((height, width), "f4")
    for row in range(height):
        band = numpy.asarray(image.crop((0, row * step, width * step, (row + 1) * step)), "f4")
        rows[row] = band.reshape(band.shape[0], width, -1).mean(axis=(0, 2))
    return rows


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """On white, and in the colours every screen shows. A profile that makes no sense is left out."""
    if image.mode in ("RGBA", "LA", "La", "RGBa"):
        colours = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(colours, mask=colours.getchannel("A"))
        white.info = image.info
        image = white
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            changed = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if changed is not None:
                return changed
    return image.convert("RGB")


def _upright(image: Image.Image, exif: Image.Exif) -> Image.Image:
    """As the picture's own Exif data say. Those of a TIFF are followed by Pillow while it loads, and gone then."""
    turn = _TURNS.get(exif.get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def words(error: Exception) -> str:
    """What went wrong, in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def send(channel: socket.socket, head: Mapping[str, Any], body: bytes = b"") -> None:
    """One message."""
    text = json.dumps(head).encode()
    channel.sendall(HEADER.pack(len(text), len(body)) + text + body)


def receive(channel: socket.socket) -> tuple[Any, int] | None:
    """One job and the descriptor of its picture; None when the gateway is gone."""
    head, descriptors, _, _ = socket.recv_fds(channel, HEADER.size, 1)
    if not head or not descriptors:
        return None
    length, _ = HEADER.unpack(head)
    return json.loads(channel.recv(length, socket.MSG_WAITALL)), descriptors[0]
