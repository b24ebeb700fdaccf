"""Writes engines whose plans the stand-in can run: of tiny and edge, split and fused as for TensorRT.

old.engine is tiny's as engines were before they took constraints.

Exits with 77, which is "skipped" to CTest, where Python lacks onnx.
"""

import json
import sys
from dataclasses import replace
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
    from robustscanner.engine import BatchRange, EngineManifest, file_sha256
    from robustscanner.spec import ModelSpec
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

BATCH = BatchRange(1, 8, 16)
TINY = ROOT / "tests" / "tiny" / "tiny.onnx"
EDGE = ROOT / "runtime" / "robustscanner" / "models" / "edge.onnx"
NAMES = ("encoder.plan", "decoder.plan")


def fixed_width(spec: ModelSpec) -> ModelSpec:
    """With canvases of one width, the widest: the C++ session knows no other."""
    return replace(spec, input=replace(spec.input, canvas_step_px=0, canvas_margin_px=0))


def close_shapes(encoder: ModelProto, decoder: ModelProto, width_px: int) -> None:
    """Leaves only the batch open."""
    shapes = open_shapes(encoder, decoder, [width_px])
    for value in (*encoder.graph.input, *decoder.graph.input):
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, [()])[0], strict=False):
            if size > 0:
                dimension.dim_value = size


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
    spec = fixed_width(spec)
    fact.value = spec.to_json()
    close_shapes(encoder, decoder, spec.input.width_px)
    if old:
        forbid_constraints(decoder)
    header = json.dumps({"min": BATCH.min, "max": BATCH.max}).encode() + b"\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, graph in zip(NAMES, (encoder, decoder), strict=True):
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
        files={name: file_sha256(folder / name) for name in NAMES},
    )
    (folder / "engine.json").write_text(manifest.to_json(), encoding="utf-8")


target = Path(sys.argv[1])
write_engine(TINY, target / "tiny.engine")
write_engine(TINY, target / "old.engine", old=True)
write_engine(EDGE, target / "edge.engine")
