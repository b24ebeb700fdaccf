"""The folder of an engine and its engine.json: written beside its place, renamed into it complete or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import onnx

from robustscanner import __version__
from robustscanner.engine import MANIFEST_NAME, EngineAccuracy, EngineManifest, file_sha256, read_manifest
from robustscanner.output import OutputError
from robustscanner.preprocess import cv2

from ..graph.model_file import file_step
from .model_source import Source
from .product import Product

SUFFIX = ".engine"


def check_bundle(target: Path, *, force: bool) -> None:
    """Looks, before minutes of work, whether a bundle may be written.

    Raises:
        OutputError: not named NAME.engine, exists and `force` is not given, or is no bundle, which is never replaced.
    """
    if target.suffix != SUFFIX or target.name == SUFFIX:
        raise OutputError(f"{target}: an engine is a folder NAME{SUFFIX}; call it {target.stem or 'word'}{SUFFIX}")
    if os.path.lexists(target):
        if not (target / MANIFEST_NAME).is_file() or target.is_symlink():
            raise OutputError(f"{target}: exists and is no engine; choose another name")
        if not force:
            raise OutputError(f"{target}: exists; choose another name, or replace it with --force")


@contextmanager
def writing_bundle(target: Path, *, force: bool) -> Iterator[Path]:
    """Gives an empty hidden folder beside the target; renamed to it at the end, removed when anything is raised.

    Raises:
        OutputError: see `check_bundle`; also when the disk refuses.
    """
    check_bundle(target, force=force)
    staging = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = _hidden_folder(target)
        yield staging
        check_bundle(target, force=force)
        _put_in_place(staging, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}; choose another place") from None
    finally:
        if staging:
            shutil.rmtree(staging, ignore_errors=True)


def write_manifest(
    source: Source, precision: str, product: Product, accuracy: EngineAccuracy | None, folder: Path
) -> EngineManifest:
    """Writes engine.json into the folder, and returns it as serving will read it."""
    libraries = {"onnx": onnx, "opencv": cv2, "numpy": numpy}
    versions = {"robustscanner": __version__, **{name: library.__version__ for name, library in libraries.items()}}
    manifest = EngineManifest(
        model=source.spec,
        precision=precision,
        batch=product.batch,
        backend=product.backend,
        versions={**versions, **product.versions},
        device=product.device,
        accuracy=accuracy,
        history=(*source.history, *product.steps, file_step("build", "convert/build_engine.py", source.path)),
        files={name: file_sha256(folder / name) for name in product.files},
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return read_manifest(folder)


def _hidden_folder(target: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    umask = os.umask(0)  # it can only be read by setting it
    os.umask(umask)
    folder.chmod(0o777 & ~umask)  # mkdtemp's 0700 would outlive the rename
    return folder


def _put_in_place(staging: Path, target: Path) -> None:
    """A folder cannot be renamed onto a full one, so the old engine steps aside, and back if need be."""
    aside = _hidden_folder(target)
    try:
        if target.exists():
            os.rename(target, aside)
        os.rename(staging, target)
    finally:
        if not target.exists() and any(aside.iterdir()):
            os.rename(aside, target)
        shutil.rmtree(aside, ignore_errors=True)
