"""Writes engines whose plans the stand-in can run: of tiny, edge and small, split and fused as for TensorRT.

old.engine is tiny's as engines were before they took constraints.

Exits with 77, which is "skipped" to CTest, where Python lacks onnx.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]
try:
    import numpy as np
    import onnx
    from onnx import ModelProto, numpy_helper

    from convert.engine.trt.attention import fuse_attention
    from convert.engine.trt.extent import open_shapes
    from convert.graph.split import split
    from robustscanner.engine import SINGLE_NAME, BatchRange, EngineManifest, file_sha256
    from robustscanner.spec import ModelSpec
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

BATCH = BatchRange(1, 8, 16)
TINY = ROOT / "tests" / "tiny" / "tiny.onnx"
MODELS = ROOT / "runtime" / "robustscanner" / "models"
NAMES = ("encoder.plan", "decoder.plan", SINGLE_NAME)


def forbid_constraints(decoder: ModelProto) -> None:
    """Everything is allowed, always."""
    (allowed,) = (value for value in decoder.graph.input if value.name == "allowed")
    shape = [size.dim_value for size in allowed.type.tensor_type.shape.dim]
    decoder.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), "allowed"))
    decoder.graph.input.remove(allowed)


def write_engine(path: Path, folder: Path, *, old: bool = False) -> None:
    """Both plans, an engine.json that names the stand-in's GPU, and beside them the model for ONNX Runtime."""
    model = onnx.load(path)
    fact = next(fact for fact in model.metadata_props if fact.key == "robustscanner.spec")
    spec = ModelSpec.from_json(fact.value)
    encoder, decoder = fuse_attention(*split(model, spec))
    shapes = open_shapes(encoder, decoder, spec.input.canvas_widths)
    if old:
        forbid_constraints(decoder)
    folder.mkdir(parents=True, exist_ok=True)
    names = NAMES[:2] if old else NAMES
    for name, graph in zip(names, (encoder, decoder, decoder), strict=False):
        largest = 1 if name == SINGLE_NAME else BATCH.max
        header = json.dumps({"min": BATCH.min, "max": largest, "shapes": shapes}).encode() + b"\n"
        (folder / name).write_bytes(header + graph.SerializeToString())
    onnx.save(model, folder.with_suffix(".onnx"))
    manifest = EngineManifest(
        model=spec,
        precision="fp32",
        batch=BATCH,
        backend="tensorrt",
        versions={"tensorrt": "10.3.0"},
        device={"name": "stand-in", "compute_capability": "sm_87"},
        accuracy=None,
        history=(),
        files={name: file_sha256(folder / name) for name in names},
    )
    (folder / "engine.json").write_text(manifest.to_json(), encoding="utf-8")


target = Path(sys.argv[1])
write_engine(TINY, target / "tiny.engine")
write_engine(TINY, target / "old.engine", old=True)
for name in ("edge", "small"):
    write_engine(MODELS / f"{name}.onnx", target / f"{name}.engine")
