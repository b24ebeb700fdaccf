"""What may be given as a picture, and its pixels."""

import sys
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from robustscanner.errors import ImageError
from robustscanner.preprocess import Image, check_image, decode_image, load_image

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# A picture file, its bytes, an array of uint8 (RGB [H, W, 3], RGBA [H, W, 4] or grey [H, W]), or Pillow's image.
Picture: TypeAlias = Union[  # a name in quotes has no |
    str, "PathLike[str]", bytes, bytearray, memoryview, npt.NDArray[np.uint8], "PillowImage"
]


def pixels_of(source: Picture) -> Image:
    """The picture as uint8 RGB [H, W, 3]; transparency is laid over white.

    Raises:
        ImageError: it is no picture; see `load_image` and `check_image`.
    """
    if isinstance(source, (str, PathLike)):
        return load_image(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return decode_image(bytes(source))
    pixels: Any = _pillow_pixels(source) if _is_pillow(source) else source
    return check_image(pixels)


def is_on_host(source: object) -> bool:
    """Whether it is something that `pixels_of` takes, and no array on a GPU."""
    return isinstance(source, (str, PathLike, bytes, bytearray, memoryview, np.ndarray)) or _is_pillow(source)


def check_several(sources: object) -> None:
    """Refuses one picture where several belong: its letters, bytes or rows would be taken for pictures.

    Raises:
        ImageError: it is one picture.
    """
    single = isinstance(sources, (str, PathLike, bytes, bytearray, memoryview)) or _is_pillow(sources)
    if isinstance(sources, np.ndarray):
        pixels = sources.dtype.kind not in "OUS"  # objects and texts may well be pictures and paths
        single = pixels and (sources.ndim < 3 or (sources.ndim == 3 and sources.shape[2] in (1, 3, 4)))
    if single:
        raise ImageError("one picture where a list of pictures belongs; call read() for it, or put it into [ ]")


def _is_pillow(source: object) -> bool:
    """Whoever has one of Pillow's images has imported Pillow; this library does not need it."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(source, pillow.Image)


def _pillow_pixels(image: Any) -> npt.NDArray[Any]:
    """Rotated as its EXIF tag says, as picture files are. 16 bits become 8; other deep kinds are left to be refused."""
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            return (np.asarray(image) >> 8).astype(np.uint8)
        if image.mode in ("I", "F"):
            return np.asarray(image)
        transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        return np.asarray(image.convert("RGBA" if transparent else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reads the file only now
        raise ImageError(f"Pillow cannot read the picture ({error}); copy or download it again") from None
