"""Pictures of every kind to canvases, and what is refused with which words."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_model import ROOT, encode, picture_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from robustscanner.errors import ImageError
from robustscanner.preprocess import (
    MAX_PIXELS,
    check_image,
    decode_image,
    draw_canvas,
    fitted_width,
    load_image,
    make_batch,
)
from robustscanner.spec import InputSpec

SPEC = InputSpec()
GOLDEN = np.load(
    ROOT / "tests" / "golden" / "preprocess.npz"
)  # BGR, as PaddleOCR and MMOCR read; resizing does not mind

RED_BLUE = np.zeros((40, 100, 3), np.uint8)  # left half red, right half blue
RED_BLUE[:, :50, 0] = RED_BLUE[:, 50:, 2] = 255


def by_pillow(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(99))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def jpeg_claiming(width: int, height: int) -> bytes:
    """A JPEG of a few bytes whose header claims any size."""
    data = bytearray(encode(np.zeros((8, 8, 3), np.uint8), ".jpg"))
    frame = data.index(b"\xff\xc0")  # marker, length (2 bytes), precision, height, width
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def colours(image: np.ndarray) -> str:
    """Names of the pixels in the middle of the four quarters, row by row."""
    height, width = image.shape[:2]
    rows, columns = (height // 4, height * 3 // 4), (width // 4, width * 3 // 4)
    names = {(1, 0, 0): "red", (0, 0, 1): "blue", (0, 0, 0): "black", (1, 1, 1): "white"}
    return " ".join(names.get(tuple((image[row, column] > 127).astype(int)), "?") for row in rows for column in columns)


# --- The canvas


@pytest.mark.parametrize("index", range(15))
def test_same_canvas_as_paddleocr(index: int) -> None:
    picture, expected = GOLDEN[f"raw_{index:02}"], GOLDEN["canvas_paddleocr"][index]
    canvas = np.full_like(expected, 99)
    valid = draw_canvas(picture, canvas, SPEC)
    assert valid == round(GOLDEN["valid_ratio_paddleocr"][index] * SPEC.width_px)
    assert np.abs(canvas.astype(int) - expected).max() <= 1  # one grey level between OpenCV versions


def test_mmocr_differs_at_one_size_only() -> None:
    same = (GOLDEN["canvas_mmocr"] == GOLDEN["canvas_paddleocr"]).all(axis=(1, 2, 3))
    assert np.flatnonzero(~same).tolist() == [14]  # 323 x 136: MMOCR's rounding error makes it 116 instead of 112


@given(
    st.integers(1, 20000),
    st.integers(1, 20000),
    st.sampled_from([SPEC, InputSpec(32, 256, 8, 8), InputSpec(64, 64, 64, 64)]),
)
def test_width_rule(height: int, width: int, spec: InputSpec) -> None:
    fitted = fitted_width(height, width, spec)
    assert spec.min_width_px <= fitted <= spec.width_px
    assert fitted % spec.width_multiple_px == 0
    ideal = spec.height_px * width / height
    if spec.min_width_px <= ideal <= spec.width_px:
        assert abs(fitted - ideal) <= spec.width_multiple_px / 2 + 1


@settings(deadline=None)
@given(
    npst.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32, np.bool_, np.int64]),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
        fill=st.just(1),
    )
)
def test_any_array_is_drawn_or_refused(image: np.ndarray) -> None:
    try:
        canvases, widths = make_batch([image], SPEC)
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.size
    assert widths.dtype == np.int32
    assert widths[0] == fitted_width(image.shape[0], image.shape[1], SPEC)
    assert not canvases[0, :, widths[0] :].any()


@pytest.mark.parametrize("resize", ["linear", "area"])
@pytest.mark.parametrize("shape", [(1, 1), (10, 20000), (20000, 10), (1, 65000), (65000, 1)])
def test_extreme_shapes(shape: tuple[int, int], resize: str) -> None:
    canvases, widths = make_batch([np.full((*shape, 3), 7, np.uint8)], InputSpec(resize=resize))
    assert (canvases[0, :, : widths[0]] == 7).all()


def test_views_are_drawn_like_copies() -> None:
    picture = GOLDEN["raw_14"]
    for view in (picture[:, :, ::-1], picture[::2, 5:-5], picture.transpose(1, 0, 2), picture[::-1]):
        assert (make_batch([view], SPEC)[0] == make_batch([view.copy()], SPEC)[0]).all()


def test_area_averages_where_linear_skips() -> None:
    stripes = np.zeros((48 * 8, 160 * 8, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the canvas
    canvases, _ = make_batch([stripes], InputSpec(resize="area"))
    assert np.abs(canvases.astype(int) - 127).max() <= 1


def test_grey_arrays() -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for image in (grey, grey[:, :, None]):
        assert (check_image(image) == np.dstack([grey] * 3)).all()


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 4, 3), np.float32), "picture is float32; expected"),
        (np.zeros((4, 4, 5), np.uint8), r"picture has shape \[4, 4, 5\]"),
        (np.zeros((0, 4, 3), np.uint8), "not empty"),
        ([[1, 2]], "picture is list"),
        (None, "picture is NoneType"),
    ],
)
def test_other_arrays_are_refused(image: object, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        check_image(image)  # type: ignore[arg-type]


# --- Files of every kind


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".ppm"])
def test_channels_arrive_as_rgb(suffix: str) -> None:
    assert colours(decode_image(encode(RED_BLUE, suffix))) == "red blue red blue"


def test_cmyk_jpeg() -> None:
    assert colours(decode_image(by_pillow(Image.fromarray(RED_BLUE).convert("CMYK"), "JPEG"))) == "red blue red blue"


def test_palette_and_grey_files() -> None:
    assert colours(decode_image(by_pillow(Image.fromarray(RED_BLUE).quantize(4), "PNG"))) == "red blue red blue"
    white_right = Image.fromarray(RED_BLUE[:, :, 2])
    for mode in ("L", "1"):
        assert colours(decode_image(by_pillow(white_right.convert(mode), "PNG"))) == "black white black white"


def test_sixteen_bits_use_the_full_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256)
    assert (decode_image(encode(np.dstack([ramp] * 3)))[0, :, 0] == np.arange(256)).all()
    assert (decode_image(by_pillow(Image.fromarray(ramp), "PNG"))[0, :, 0] == np.arange(256)).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_black_on_transparent_is_black_on_white(kind: str) -> None:
    ink = np.zeros((40, 100, 4), np.uint8)
    ink[:20, :50, 3] = 255
    options = {"lossless": True} if kind == "WEBP" else {}
    assert colours(decode_image(by_pillow(Image.fromarray(ink), kind, **options))) == "black white white white"


def test_black_on_transparent_in_sixteen_bits_and_grey() -> None:
    ink = np.zeros((40, 100, 4), np.uint16)
    ink[:20, :50, 3] = 65535
    assert colours(decode_image(cv2.imencode(".png", ink)[1].tobytes())) == "black white white white"
    grey = Image.fromarray(np.dstack([np.zeros((40, 100), np.uint8), (ink[:, :, 3] >> 8).astype(np.uint8)]), "LA")
    assert colours(decode_image(by_pillow(grey, "PNG"))) == "black white white white"


@pytest.mark.parametrize(
    ("orientation", "seen"), [(1, "red blue red blue"), (3, "blue red blue red"), (6, "red red blue blue")]
)
def test_exif_rotation(orientation: int, seen: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(RED_BLUE)
    assert colours(decode_image(by_pillow(picture, "JPEG", exif=exif))) == seen
    if int(cv2.__version__.split(".")[0]) >= 5:  # before, OpenCV reads the tag of JPEG only
        picture.putalpha(255)  # which hides nothing
        assert colours(decode_image(by_pillow(picture, "PNG", exif=exif))) == seen


# --- Files that are none


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated(suffix: str, share: float) -> None:
    data = encode(np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8), suffix)
    with pytest.raises(ImageError, match=r"truncated|not a picture|damaged"):
        decode_image(data[: int(len(data) * share)])


NOISE = np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8)


@pytest.mark.parametrize(
    "kind", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"exif": b"Exif\0\0\xff\xda\xff\xd9"}]
)
@pytest.mark.parametrize(
    "after", [b"", bytes(4096), b"\xff\xd9", b"\xff\xda", b"ftyp" + NOISE.tobytes(), b"\xff\xd8\xff\xe0"]
)
def test_whatever_follows_a_jpeg(kind: dict[str, object], after: bytes) -> None:
    """As a film does in a motion photo; what follows holds markers by chance. Before the end, they do not count."""
    whole = by_pillow(Image.fromarray(NOISE), "JPEG", quality=95, **kind)
    assert (decode_image(whole + after) == decode_image(whole)).all()
    for cut in (whole[:-2], whole[: len(whole) // 2]):
        with pytest.raises(ImageError, match="truncated"):
            decode_image(cut)


@pytest.mark.parametrize("extra", [b"\xff\xff\xff", b"\xff\x01"])
def test_jpeg_fillings(extra: bytes) -> None:
    whole = by_pillow(Image.fromarray(NOISE), "JPEG")
    assert (decode_image(whole[:-2] + extra + whole[-2:])[..., 0].shape) == (40, 100)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="a pipe into which nobody writes"):
        load_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_a_pipe_that_someone_writes_to(tmp_path: Path) -> None:
    """What a shell's <(command) stands for; the writer may be slow."""
    (tmp_path / "a.jpg").write_bytes(encode(picture_of("dog"), ".jpg"))
    with subprocess.Popen(["sh", "-c", f"sleep 0.2; cat '{tmp_path}/a.jpg'"], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        assert load_image(f"/dev/fd/{writer.stdout.fileno()}").shape == (48, 80, 3)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"This is a text with the name of a picture.\n" * 9, "not a picture"),
        (bytes(1000), "not a picture"),
        (png_claiming(50000, 50000), "over 67 megapixels; crop"),
        (png_claiming(MAX_PIXELS + 1, 1), "over 67 megapixels; crop"),
        (png_claiming(0, 5), "not a picture|damaged"),
        (jpeg_claiming(60000, 60000), "over 67 megapixels; crop"),
    ],
)
def test_refused(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=says) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path, "Is a directory"),
        (tmp_path / "no.png", "No such file"),
        (Path("a\0b"), "null byte"),
    ):
        with pytest.raises(ImageError, match=says):
            load_image(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs an endless device")
def test_endless_device() -> None:
    with pytest.raises(ImageError, match="larger than 256 MiB"):
        load_image("/dev/zero")


@pytest.mark.parametrize("first", ["import cv2", "pass"])
def test_pixel_limit_holds_whoever_imports_opencv_first(tmp_path: Path, first: str) -> None:
    (tmp_path / "big.pbm").write_bytes(b"P4\n9000 9000\n" + bytes(9000 * 9000 // 8))
    code = f"{first}\nfrom robustscanner.preprocess import load_image\nload_image('big.pbm')"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV_")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(ROOT / "runtime")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "ImageError: big.pbm: over 67 megapixels" in result.stderr


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([".png", ".jpg", ".webp", ".bmp"]), st.data())
def test_damaged_files_are_read_or_refused(suffix: str, data: st.DataObject) -> None:
    content = bytearray(encode(picture_of("abc", 8, 12), suffix))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(content))
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,)


def test_damaged_png_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    whole = encode(RED_BLUE)
    pixels = whole.index(b"IDAT") + 6
    with pytest.raises(ImageError, match=r"^damaged; copy"):
        decode_image(whole[:pixels] + bytes(4) + whole[pixels + 4 :])
    with pytest.raises(ImageError, match=r"^truncated; copy"):
        decode_image(whole[:-6])
    assert capfd.readouterr() == ("", "")  # libpng prints what it refuses


def test_damaged_comment_in_png_does_not_matter() -> None:
    text = b"tEXtComment\0x"
    chunk = struct.pack(">I", len(text) - 4) + text + bytes(4)
    whole = encode(RED_BLUE)
    assert colours(decode_image(whole[:33] + chunk + whole[33:])) == "red blue red blue"
