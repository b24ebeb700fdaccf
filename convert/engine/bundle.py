"""The folder of an engine and its engine.json: written beside its place, renamed into it complete or not at all."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import numpy
import onnx

from robustscanner import __version__
from robustscanner.engine import MANIFEST_NAME, EngineAccuracy, EngineManifest, file_sha256, read_manifest
from robustscanner.output import OutputError, writing_folder
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


def writing_bundle(target: Path, *, force: bool) -> AbstractContextManager[Path]:
    """See `writing_folder`; `check_bundle` says what may be there."""
    return writing_folder(target, lambda: check_bundle(target, force=force))


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
