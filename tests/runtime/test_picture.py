"""What may be given as a picture."""

import io
from pathlib import Path

import numpy as np
import pytest
from fake_model import colour_of, encode, picture_of
from PIL import Image

from robustscanner import ImageError, Reading, Recognizer
from robustscanner.picture import Picture, pixels_of

DOG = Image.fromarray(picture_of("dog"))
GREY = Image.new("L", (80, 48), 128)


def dog_on_transparent() -> Image.Image:
    """Its colour where it is opaque: the upper half."""
    alpha = Image.new("L", DOG.size, 0)
    alpha.paste(255, (0, 0, 80, 24))
    picture = DOG.copy()
    picture.putalpha(alpha)
    return picture


@pytest.mark.parametrize(
    "source",
    [
        encode(picture_of("dog")),
        bytearray(encode(picture_of("dog"))),
        memoryview(encode(picture_of("dog"))),
        DOG,
        dog_on_transparent(),
        np.asarray(dog_on_transparent()),
        DOG.quantize(4),
        picture_of("dog")[:, ::-1],  # a view that is not contiguous
    ],
)
def test_kinds(engine: Path, source: Picture) -> None:
    with Recognizer(engine) as recognizer:
        assert recognizer.read(source) == Reading("dog", 0.5)
        assert recognizer.read_batch([source, source]) == [Reading("dog", 0.5)] * 2


def test_transparency_is_white() -> None:
    for source in (dog_on_transparent(), np.asarray(dog_on_transparent())):
        pixels = pixels_of(source)
        assert tuple(pixels[0, 0]) == colour_of("dog")
        assert tuple(pixels[47, 0]) == (255, 255, 255)


@pytest.mark.parametrize(
    "source", [GREY, GREY.convert("LA"), GREY.convert("I;16").point(lambda level: level * 257), np.asarray(GREY)]
)
def test_grey(source: Picture) -> None:
    pixels = pixels_of(source)
    assert pixels.shape == (48, 80, 3)
    assert (pixels == 128).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"])
def test_pillow_modes(mode: str) -> None:
    assert (pixels_of(Image.new("RGB", (20, 10), "white").convert(mode)) > 250).all()


def test_pillow_rotates_as_files_do() -> None:
    exif, picture = Image.Exif(), Image.new("RGB", (20, 10))
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif)
    assert pixels_of(Image.open(file)).shape == pixels_of(file.getvalue()).shape == (20, 10, 3)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "empty file"),
        (b"no picture", "not a picture"),
        (Image.new("F", (8, 8)), "picture is float32; expected a path"),
        (Image.new("I", (8, 8)), "picture is int32; expected a path"),
        (Image.new("RGB", (0, 8)), "not empty"),
        (Image.open(io.BytesIO(encode(picture_of("dog"))[:60])), "Pillow cannot read the picture"),
        (np.zeros((8, 8, 3)), "picture is float64; expected a path, the bytes of a file, or an array of uint8"),
        (np.zeros((8, 8, 2), np.uint8), r"shape \[8, 8, 2\]"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"shape \[1, 8, 8, 3\]"),
        (None, "picture is NoneType"),
        (["a.png"], "picture is list"),
    ],
)
def test_what_is_no_picture(engine: Path, source: Picture, says: str) -> None:
    with Recognizer(engine) as recognizer, pytest.raises(ImageError, match=says):
        recognizer.read(source)


@pytest.mark.parametrize(
    "source", ["a.png", Path("a.png"), encode(picture_of("dog")), picture_of("dog"), np.asarray(GREY), DOG]
)
def test_one_picture_is_no_list(engine: Path, source: Picture) -> None:
    with Recognizer(engine) as recognizer:
        with pytest.raises(ImageError, match="one picture where a list of pictures belongs"):
            recognizer.read_batch(source)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match="one picture where a list of pictures belongs"):
            list(recognizer.read_each(source))  # type: ignore[arg-type]


def test_stacks_are_lists(engine: Path, tmp_path: Path) -> None:
    stack = np.stack([picture_of("dog"), picture_of("cat")])
    (tmp_path / "a.png").write_bytes(encode(picture_of("owl")))
    with Recognizer(engine) as recognizer:
        assert [reading.text for reading in recognizer.read_batch(stack)] == ["dog", "cat"]
        assert recognizer.read_batch(np.array([str(tmp_path / "a.png")]))[0].text == "owl"
