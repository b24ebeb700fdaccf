"""Picture to canvas. Normalising happens inside the graph, so there is nothing to disagree on."""

import math
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustscanner.errors import ImageError, MissingPackageError
from robustscanner.spec import InputSpec

MAX_PIXELS = 2**26  # 192 MiB decoded: far beyond a word crop of any camera, far below a decompression bomb
MAX_FILE_MIB = 256

# OpenCV reads it once, at import, and checks a file's header against it before it allocates. Whoever imports cv2 before
# this module gets OpenCV's own limit of 2**30 there; ours is then checked after decoding.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a bad file is our exception, not OpenCV's line on stderr

try:
    import cv2 as cv2  # `sheet` takes it from here, so that the limit holds there too
except ImportError as error:
    raise MissingPackageError(
        f"OpenCV cannot be imported ({error}); pip install 'robustscanner[cpu]', or the opencv-python of your choice"
    ) from None

Image = npt.NDArray[np.uint8]

_TOO_LARGE = f"over {MAX_PIXELS // 10**6} megapixels; crop the word out of it"
_TRUNCATED = "truncated; copy or download it again"
_DAMAGED = "damaged; copy or download it again"
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

# ITU T.81, B.1.1.2: 0xFF before anything but 0 (then it is a byte of the picture) or 0xFF (filling) is a marker. The
# restarts within a scan, TEM and SOI stand alone; all others have a length and content, but for the end.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_JPEG_END = b"\xd9"


def load_image(path: str | os.PathLike[str]) -> Image:
    """Reads a picture file as uint8 RGB [H, W, 3].

    Raises:
        ImageError: missing, empty, not a picture, truncated, or over `MAX_PIXELS` or `MAX_FILE_MIB`.
    """
    path = Path(path)
    try:
        return decode_image(_read_file(path))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}; check the path and its permissions") from None
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"{path}: {error}; check the path") from None


def _read_file(path: Path) -> bytes:
    """At most a byte more than is allowed: the path may be an endless device, or a pipe that nobody writes to."""
    with os.fdopen(
        os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb"
    ) as file:
        pipe = stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
        if pipe:  # opened without waiting for a writer; one that is there is waited for, as in `recognize <(command)`
            os.set_blocking(file.fileno(), True)
        data = file.read((MAX_FILE_MIB << 20) + 1)
    if pipe and not data:
        raise ImageError("a pipe into which nobody writes; give a file")
    return data


def decode_image(data: bytes) -> Image:
    """Decodes a picture in memory to uint8 RGB [H, W, 3].

    EXIF rotation is applied (not where something is transparent), transparency is laid over white as viewers do,
    16 bits become 8, grey and CMYK become RGB.

    Raises:
        ImageError: see `load_image`.
    """
    _check_file(data)
    buffer = np.frombuffer(data, np.uint8)
    image = _flatten_alpha(_decode(buffer, cv2.IMREAD_UNCHANGED)) if _may_have_alpha(data) else None
    if image is None:  # only this mode applies EXIF rotation and converts grey, CMYK and 16 bits
        image = _decode(buffer, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def check_image(image: Image) -> Image:
    """Makes a uint8 array into RGB [H, W, 3]: that itself, grey [H, W] or [H, W, 1], or RGBA [H, W, 4] over white.

    Raises:
        ImageError: it is of another kind or shape, or empty.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise ImageError(f"picture is {kind}; expected a path, the bytes of a file, or an array of uint8 (RGB, 0…255)")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or image.size == 0:
        raise ImageError(f"picture has shape {list(image.shape)}; expected [H, W, 3], RGB, not empty")
    return image if image.shape[2] == 3 else _over_white(image)


def fitted_width(height: int, width: int, spec: InputSpec) -> int:
    """Width in pixels that a picture gets on the canvas: ratio kept, rounded half to even, within the canvas.

    Source: PaddleOCR's resize for SAR and RobustScanner, or MMOCR's, in which the ratio is rounded elsewhere.
    """
    multiple, tall = spec.width_multiple_px, spec.height_px
    ideal = math.ceil(tall * (width / height) if spec.width_rule == "ratio" else tall / height * width)
    rounded = ideal if ideal % multiple == 0 else round(ideal / multiple) * multiple
    return min(spec.width_px, max(spec.min_width_px, rounded))


def draw_canvas(image: Image, canvas: Image, spec: InputSpec) -> int:
    """Resizes a picture into a canvas [height, width, 3], blackens the rest, and returns the valid width in pixels.

    The canvas has the spec's full width; what the word needs of it is `spec.canvas_width` of what is returned.
    """
    height, width = image.shape[:2]
    valid = fitted_width(height, width, spec)
    shrinks = height > spec.height_px or width > valid
    mode = cv2.INTER_AREA if spec.resize == "area" and shrinks else cv2.INTER_LINEAR
    try:
        canvas[:, :valid] = cv2.resize(image, (valid, spec.height_px), interpolation=mode)
    except cv2.error as error:
        raise ImageError(f"a picture of {width} x {height} pixels cannot be resized ({error.err})") from None
    canvas[:, valid:] = 0
    return valid


def same_width(widths: Sequence[int], spec: InputSpec) -> Iterator[tuple[npt.NDArray[np.intp], int]]:
    """Valid widths in pixels to rows that share a canvas width, and that width: no text depends on its companions."""
    wanted = np.array([spec.canvas_width(width) for width in widths], np.intp)
    for wide in np.unique(wanted):
        yield np.flatnonzero(wanted == wide), int(wide)


def make_batch(images: list[Image], spec: InputSpec) -> tuple[Image, npt.NDArray[np.int32]]:
    """Pictures to the graph's inputs: canvases uint8 [N, height, width, 3] and valid widths int32 [N].

    The canvases are as wide as the widest word's; to read as the library does, pictures of one batch need one width.
    """
    canvases = np.empty((len(images), spec.height_px, spec.width_px, 3), np.uint8)
    widths = [draw_canvas(check_image(image), canvas, spec) for image, canvas in zip(images, canvases, strict=True)]
    wide = spec.canvas_width(max(widths, default=0))
    return np.ascontiguousarray(canvases[:, :, :wide]), np.array(widths, np.int32)


def _check_file(data: bytes) -> None:
    """Finds what OpenCV may let pass: before version 5, a truncated JPEG is half a picture above half a grey field."""
    if not data:
        raise ImageError("empty file; copy or download it again")
    if len(data) > MAX_FILE_MIB << 20:
        raise ImageError(f"larger than {MAX_FILE_MIB} MiB; crop the word out of it")
    if data.startswith(_JPEG) and not _jpeg_ends(data):
        raise ImageError(_TRUNCATED)
    if data.startswith(_PNG):
        _check_png(memoryview(data))


def _jpeg_ends(data: bytes) -> bool:
    """Whether the picture's end is in the file. Whatever follows it (a film, another picture) is not looked at."""
    found = _JPEG_MARKER.search(data)
    while found and found[1] != _JPEG_END:
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")  # these two bytes included
        found = _JPEG_MARKER.search(data, found.end() + length)
    return found is not None


def _check_png(data: memoryview) -> None:
    """Size, checksums of the chunks that matter, and the end: what libpng would complain about on stderr."""
    if int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big") > MAX_PIXELS:
        raise ImageError(_TOO_LARGE)
    start = len(_PNG)
    while start + 12 <= len(data):  # length, name, content, checksum
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        if end + 4 > len(data):
            break
        name, checksum = bytes(data[start + 4 : start + 8]), int.from_bytes(data[end : end + 4], "big")
        if name[:1].isupper() and zlib.crc32(data[start + 4 : end]) != checksum:
            raise ImageError(_DAMAGED)
        if name == b"IEND":
            return
        start = end + 4
    raise ImageError(_TRUNCATED)


def _decode(buffer: Image, mode: int) -> npt.NDArray[Any]:
    """BGR as uint8, or in IMREAD_UNCHANGED whatever the file holds."""
    try:
        image = cv2.imdecode(buffer, mode)
    except (cv2.error, MemoryError) as error:
        if "pixels" in str(error).lower():  # OPENCV_IO_MAX_IMAGE_PIXELS
            raise ImageError(_TOO_LARGE) from None
        raise ImageError(_DAMAGED) from None
    if image is None:
        raise ImageError("not a picture, truncated, or of a kind that OpenCV lacks; convert it to PNG or JPEG")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ImageError(_TOO_LARGE)
    return image


def _may_have_alpha(data: bytes) -> bool:
    """A cheap look that saves most files a second decode."""
    if data.startswith((_JPEG, b"BM")):  # BMP's fourth byte is padding more often than alpha
        return False
    if data.startswith(_PNG):
        return data[25:26] in (b"\x04", b"\x06") or b"tRNS" in data[:4096]  # colour type
    return data[8:16] != b"WEBPVP8 "  # plain lossy WebP


def _flatten_alpha(image: npt.NDArray[Any]) -> Image | None:
    """BGRA of 8 or 16 bits over white to BGR [H, W, 3]; None without an alpha channel, or if it hides nothing."""
    if image.ndim != 3 or image.shape[2] != 4 or image.dtype not in (np.uint8, np.uint16):
        return None
    if image.dtype == np.uint8 and image[:, :, 3].min() == 255:
        return None
    return _over_white(image)


def _over_white(image: npt.NDArray[Any]) -> Image:
    """Three channels and alpha [H, W, 4], of 8 or 16 bits, over white to uint8 [H, W, 3]."""
    full = np.iinfo(image.dtype).max
    alpha = image[:, :, 3:].astype(np.float32) / full
    blended = image[:, :, :3] * alpha + full * (1 - alpha)
    return (blended * (255 / full) + 0.5).astype(np.uint8)
