"""The TensorRT builder, against stand-ins for every version, and with TensorRT-RTX, which needs no GPU."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from convert.engine.model_source import load_source
from convert.engine.trt import builder as trt_builder
from convert.engine.trt import installed as trt_library
from convert.engine.trt.backend import TensorRTBackend, TensorRTOptions
from convert.engine.trt.builder import (
    BuilderOptions,
    BuiltPlan,
    build_plan,
    check_options,
    check_reading,
    list_network,
    runs_here,
)
from convert.engine.trt.installed import TensorRT, load_library
from convert.engine.trt.layers import convolution_precisions, summarise
from convert.engine.trt.watch import BuildWatch
from convert.int8.calibration import CalibrationSet
from convert.int8.recipe import Recipe
from robustscanner.engine import BatchRange
from robustscanner.errors import EngineError
from robustscanner.labels import LabelledCrop
from tests.convert.conftest import TINY
from tests.convert.engine.trt import fake_tensorrt

BATCH = BatchRange(1, 4, 16)
REAL = [name for name in fake_tensorrt.DUMPS if not name.startswith("rtx")]
RTX = next(name for name in fake_tensorrt.DUMPS if name.startswith("rtx"))
WEAK = [name for name in REAL if not name.startswith("11")]
STRONG = [name for name in fake_tensorrt.DUMPS if not name.startswith("8")]

PLAIN = """<ir_version: 8, opset_import: ["" : 17]>
plain (float[batch, 4, 8, 8] x, int32[1] step, float[4, 4, 3, 3] w) => (float[batch, 4, 8, 8] y) {
  [conv] c = Conv <pads = [1, 1, 1, 1]> (x, w)
  [relu] y = Relu (c)
}"""

DECOMPOSED = """<ir_version: 8, opset_import: ["" : 17]>
clip (float[batch, 4, 8, 8] x, float[4, 4, 3, 3] w, float low, float high) => (float[batch, 4, 8, 8] y, int64[4] z) {
  [conv] c = Conv <pads = [1, 1, 1, 1]> (x, w)
  [clip] d = Clip (c, low, high)
  [shape] z = Shape (d)
  [relu] y = Relu (d)
}"""

# A residual block as TensorRT fuses it: half, the convolutions' inputs and the skip through 8 bits.
QUANTISED = """<ir_version: 9, opset_import: ["" : 19]>
quantised (float16[batch, 32, 8, 8] x) => (float16[batch, 32, 8, 8] y) {
  [q0] xq = QuantizeLinear (x, s, z)
  [dq0] xd = DequantizeLinear (xq, s, z)
  [w1] wd1 = DequantizeLinear <axis = 0> (w, ws, wz)
  [conv1] a = Conv <pads = [1, 1, 1, 1]> (xd, wd1)
  [relu1] b = Relu (a)
  [q1] bq = QuantizeLinear (b, s, z)
  [dq1] bd = DequantizeLinear (bq, s, z)
  [w2] wd2 = DequantizeLinear <axis = 0> (w, ws, wz)
  [conv2] c = Conv <pads = [1, 1, 1, 1]> (bd, wd2)
  [add] d = Add (c, xd)
  [relu2] y = Relu (d)
}"""


def plain() -> bytes:
    return _with_weights(PLAIN.replace(", float[4, 4, 3, 3] w", ""), w=np.ones((4, 4, 3, 3), np.float32))


def decomposed() -> bytes:
    text = DECOMPOSED.replace(", float[4, 4, 3, 3] w, float low, float high", "")
    return _with_weights(text, w=np.ones((4, 4, 3, 3), np.float32), low=np.float32(0), high=np.float32(1))


def quantised() -> bytes:
    weights = np.random.default_rng(1).integers(-127, 128, (32, 32, 3, 3)).astype(np.int8)
    scales = {"s": np.float16(0.05), "ws": np.full(32, 0.01, np.float16)}
    return _with_weights(QUANTISED, w=weights, z=np.int8(0), wz=np.zeros(32, np.int8), **scales)


def half() -> bytes:
    text = PLAIN.replace("float[", "float16[").replace(", float16[4, 4, 3, 3] w", "")
    return _with_weights(text, w=np.ones((4, 4, 3, 3), np.float16))


def _with_weights(text: str, **weights: Any) -> bytes:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    return model.SerializeToString()


def options(precision: str = "fp32", **rest: Any) -> BuilderOptions:
    return BuilderOptions(precision, BATCH, **rest)


class TestEveryVersion:
    @pytest.fixture(autouse=True)
    def _gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trt_builder, "local_gpu", lambda: "sm_80")

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    @pytest.mark.parametrize("name", fake_tensorrt.DUMPS)
    def test_builds_with_every_option_it_has(self, name: str, precision: str, tmp_path: Path) -> None:
        library, notes = fake_tensorrt.load(name)
        features = library.features
        wanted = options(
            precision,
            workspace_mib=256,
            optimization_level=5 if features.optimization_level else None,
            version_compatible=features.version_compatible,
            targets=features.targets[:2],
        )
        cache = tmp_path / "times.cache" if features.timing_cache else None
        check_options(library, wanted, timing_cache=cache is not None)
        plan = build_plan(library, plain(), wanted, float32_layers=frozenset({"relu"}), timing_cache=cache)
        assert plan.data == b"plan"
        assert [(layer.precision, layer.nodes) for layer in plan.layers] == [("Half", ("conv",))]
        assert notes.profiles == {"x": [(1, 4, 8, 8), (4, 4, 8, 8), (16, 4, 8, 8)]}  # and none for step
        assert "TF32" not in notes.flags
        assert cache is None or cache.read_bytes() == b"times"
        assert ("VERSION_COMPATIBLE" in notes.flags) == features.version_compatible

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    @pytest.mark.parametrize("name", WEAK)
    def test_weak_typing_sets_flags(self, name: str, precision: str) -> None:
        library, notes = fake_tensorrt.load(name)
        build_plan(library, plain(), options(precision, typing="weak"), float32_layers=frozenset({"relu"}))
        flags = {"fp32": set(), "fp16": {"FP16"}, "int8": {"FP16", "INT8"}}[precision]
        assert notes.flags == (flags | {"OBEY_PRECISION_CONSTRAINTS"} if flags else set())
        assert notes.network_flags == ["EXPLICIT_BATCH"]

    @pytest.mark.parametrize("name", STRONG)
    def test_strong_typing_sets_none(self, name: str) -> None:
        library, notes = fake_tensorrt.load(name)
        build_plan(library, plain(), options("int8"), float32_layers=frozenset({"relu"}))
        assert notes.flags == set()
        assert "STRONGLY_TYPED" in notes.network_flags

    @pytest.mark.parametrize("name", REAL)
    def test_failed_build_is_tried_again_with_cublas_and_cudnn(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library, notes = fake_tensorrt.load(name)
        notes.build_fails = "Could not find any implementation for node"
        if name.startswith("11"):
            with pytest.raises(EngineError, match="Could not find any implementation"):
                build_plan(library, plain(), options())
            return
        found: list[str] = []

        def on_build(config: Any) -> None:
            found.append(notes.events[-1])
            notes.build_fails = "Could not find any implementation" if len(found) == 1 else None

        notes.on_build = on_build
        monkeypatch.setattr(trt_builder, "find_library", lambda name: f"lib{name}.so")
        assert build_plan(library, plain(), options()).data == b"plan"
        assert ["CUDNN" in event for event in found] == [False, True]
        monkeypatch.setattr(trt_builder, "find_library", lambda name: None)
        notes.on_build = lambda config: setattr(notes, "build_fails", "Could not find any implementation")
        with pytest.raises(EngineError, match="Could not find any implementation"):
            build_plan(library, plain(), options())

    @pytest.mark.parametrize("name", REAL)
    def test_lends_no_tactics_of_cublas_and_cudnn(self, name: str) -> None:
        library, notes = fake_tensorrt.load(name)
        build_plan(library, plain(), options())
        found = [event for event in notes.events if event.startswith("tactics")]
        assert found == ([] if name.startswith("11") else ["tactics EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS"])

    @pytest.mark.parametrize("name", REAL)
    def test_contexts_share_the_profile(self, name: str) -> None:
        library, notes = fake_tensorrt.load(name)
        build_plan(library, plain(), options())
        assert ("PROFILE_SHARING_0806 True" in notes.events) != name.startswith("11")  # where it goes without saying

    @pytest.mark.parametrize("name", fake_tensorrt.DUMPS)
    def test_lists_the_network(self, name: str) -> None:
        library, _notes = fake_tensorrt.load(name)
        layers = list_network(library, plain(), options("fp16"), float32_layers=frozenset({"relu"}))
        conv = "Half" if not library.features.strong_typing else "Float"  # strong typing: as the graph says
        assert [(layer.name, layer.precision) for layer in layers] == [("conv", conv), ("relu", "Float")]

    @pytest.mark.parametrize("name", fake_tensorrt.DUMPS)
    def test_parser_errors_name_the_node(self, name: str) -> None:
        library, notes = fake_tensorrt.load(name)
        notes.parser_error = SimpleNamespace(
            node=1, node_name="relu", node_operator="Relu", desc='creator && "Plugin not found, are the …"'
        )
        with pytest.raises(EngineError, match=r"cannot take node 'relu' \(Relu\).*Plugin not found.*; update TensorRT"):
            build_plan(library, plain(), options())

    @pytest.mark.parametrize("name", fake_tensorrt.DUMPS)
    def test_a_failed_build_says_what_the_log_said(self, name: str) -> None:
        library, notes = fake_tensorrt.load(name)
        notes.build_fails = "[memory.cpp::alloc] Could not allocate 3 GB"
        with pytest.raises(EngineError, match=r"cannot build the network .*3 GB.*; lower --max-batch"):
            build_plan(library, plain(), options())


class TestStandIns:
    def test_have_no_names_that_the_version_lacks(self) -> None:
        old, new = (fake_tensorrt.load(name)[0].module for name in ("8.6.1", "11.4.0.106"))
        with pytest.raises(AttributeError, match="progress_monitor"):
            old.IBuilderConfig().progress_monitor = None
        with pytest.raises(AttributeError, match="STRONGLY_TYPED"):
            _ = old.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        with pytest.raises(AttributeError, match="FP16"):
            _ = new.BuilderFlag.FP16
        with pytest.raises(AttributeError, match="IInt8EntropyCalibrator2"):
            _ = new.IInt8EntropyCalibrator2


class TestChecks:
    @pytest.fixture(autouse=True)
    def _gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trt_builder, "local_gpu", lambda: "sm_80")

    @pytest.mark.parametrize(
        ("name", "wanted", "extra", "message"),
        [
            ("8.6.1", {"typing": "strong"}, {}, "strong typing: TensorRT 8.6.1 does not have it"),
            ("11.4.0.106", {"typing": "weak"}, {}, "weak typing: TensorRT 11.4.0.106 does not have it"),
            ("11.4.0.106", {"precision": "int8"}, {"calibrator": True}, "--int8-calibrator: TensorRT 11.4.0.106"),
            ("10.3.0", {"precision": "int8"}, {"calibrator": True}, "none for strongly typed networks"),
            ("10.3.0", {"targets": ("sm_86",)}, {}, "--target sm_86: TensorRT 10.3.0 builds for the GPU in this"),
            (RTX, {"targets": ("sm_87",)}, {}, "sm_75, sm_80, sm_86, sm_89, sm_120, sm_121 only"),
            (RTX, {"version_compatible": True}, {}, "--version-compatible: TensorRT-RTX"),
            (RTX, {}, {"timing_cache": True}, "--timing-cache: TensorRT-RTX"),
            ("10.3.0", {"optimization_level": 6}, {}, "not one of 0…5"),
            ("10.3.0", {"workspace_mib": 0}, {}, "less than 1 MiB"),
            ("10.3.0", {"precision": "int4"}, {}, "unknown precision 'int4'"),
        ],
    )
    def test_what_a_version_cannot_do_is_an_error(
        self, name: str, wanted: dict[str, Any], extra: dict[str, bool], message: str
    ) -> None:
        library, _notes = fake_tensorrt.load(name)
        with pytest.raises(EngineError, match=message):
            check_options(library, options(**wanted), **extra)

    @pytest.mark.parametrize("name", WEAK)
    def test_the_calibrator_is_offered_for_weak_typing(self, name: str) -> None:
        library, _notes = fake_tensorrt.load(name)
        check_options(library, options("int8", typing="weak"), calibrator=True)
        assert library.features.calibrator

    @pytest.mark.parametrize("name", ["8.6.1", "11.4.0.106"])
    def test_int8_without_int8_is_an_error(self, name: str) -> None:
        library, _notes = fake_tensorrt.load(name)
        bare = dataclasses.replace(library, features=dataclasses.replace(library.features, int8_flag=False))
        if library.features.strong_typing:
            check_options(bare, options("int8"))  # the graph says it
        else:
            with pytest.raises(EngineError, match=r"--int8: TensorRT 8[.]6[.]1 has no INT8"):
                check_options(bare, options("int8"))

    @pytest.mark.parametrize("name", fake_tensorrt.DUMPS)
    def test_without_a_gpu_only_rtx_builds(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trt_builder, "local_gpu", lambda: None)
        library, _notes = fake_tensorrt.load(name)
        if name == RTX:
            check_options(library, options())
        else:
            with pytest.raises(EngineError, match="builds on an NVIDIA GPU only"):
                check_options(library, options())

    def test_a_missing_library_says_how_to_install_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        with pytest.raises(
            EngineError, match=r"tensorrt cannot be imported.*; pip install tensorrt.*python3-libnvinfer"
        ):
            load_library("tensorrt")

    def test_no_driver_is_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> Any:
            raise OSError(name)

        monkeypatch.setattr(trt_library.ctypes, "CDLL", missing)
        assert trt_library.local_gpu() is None
        driver = SimpleNamespace(cuInit=lambda flags: 100)  # no device
        monkeypatch.setattr(trt_library.ctypes, "CDLL", lambda name: driver)
        assert trt_library.local_gpu() is None

    @pytest.mark.parametrize(("users", "then"), [(None, "LAZY"), ("EAGER", "EAGER")])
    def test_kernels_are_loaded_lazily_unless_the_user_says_otherwise(
        self, users: str | None, then: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CUDA_MODULE_LOADING", users or "")
        if users is None:
            monkeypatch.delenv("CUDA_MODULE_LOADING")
        seen: list[str | None] = []
        driver = SimpleNamespace(cuInit=lambda flags: seen.append(os.environ.get("CUDA_MODULE_LOADING")) or 100)
        monkeypatch.setattr(trt_library.ctypes, "CDLL", lambda name: driver)
        trt_library.local_gpu()
        assert seen == [then]

    @pytest.mark.parametrize(
        ("name", "targets", "here", "runs"),
        [
            ("10.3.0", (), "sm_87", True),
            ("10.3.0", (), None, False),
            (RTX, (), "sm_86", True),
            (RTX, (), "sm_87", False),  # Orin is none of its targets
            (RTX, (), None, False),
            (RTX, ("sm_86", "sm_89"), "sm_89", True),
            (RTX, ("sm_86", "sm_89"), "sm_120", False),
        ],
    )
    def test_pycuda_is_missed_before_the_build_and_only_where_it_is_used(
        self, name: str, targets: tuple[str, ...], here: str | None, runs: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library, _notes = fake_tensorrt.load(name)
        monkeypatch.setattr(trt_builder, "local_gpu", lambda: here)
        monkeypatch.setitem(sys.modules, "pycuda.driver", None)
        assert runs_here(library, options(targets=targets)) == runs
        if not runs:
            check_reading(library, options(targets=targets))
            return
        with pytest.raises(EngineError, match="needs PyCUDA, which cannot be imported"):
            check_reading(library, options(targets=targets))

    @pytest.mark.parametrize(
        ("here", "installed", "chosen"),
        [
            (None, {"tensorrt", "tensorrt_rtx"}, None),
            ("sm_87", {"tensorrt", "tensorrt_rtx"}, "tensorrt"),
            ("sm_87", {"tensorrt_rtx"}, None),  # which builds nothing for Orin
            ("sm_89", {"tensorrt_rtx"}, "tensorrt-rtx"),
            ("sm_89", set(), None),
        ],
    )
    def test_backend_is_chosen_by_what_builds_for_this_gpu(
        self, here: str | None, installed: set[str], chosen: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rtx, _notes = fake_tensorrt.load(RTX)
        monkeypatch.setattr(trt_library, "local_gpu", lambda: here)
        monkeypatch.setattr(trt_library, "find_spec", lambda name: name in installed or None)
        monkeypatch.setattr(trt_library, "load_library", lambda backend: rtx)
        assert trt_library.backend_for_this_gpu() == chosen


class TestBuild:
    def test_only_the_batch_may_be_open(self) -> None:
        library, _notes = fake_tensorrt.load("10.3.0")
        with pytest.raises(EngineError, match=r"input 'x' of shape \(-1, 4, -1, 8\): nobody says how large it may be"):
            build_plan(library, plain_with_open_height(), options())

    def test_named_layers_stay_float(self, caplog: pytest.LogCaptureFixture) -> None:
        library, notes = fake_tensorrt.load("8.6.1")
        build_plan(library, plain(), options("fp16"), float32_layers=frozenset({"relu", "softmax"}))
        conv, relu = (notes.network.get_layer(index) for index in range(2))
        assert (conv.precision, conv._types) == (None, {})
        assert (relu.precision.name, relu._types[0].name) == ("FLOAT", "FLOAT")
        assert [record.message for record in caplog.records] == [
            "no layer is made of softmax; it may run in half precision"
        ]

    @pytest.mark.parametrize("name", WEAK)
    def test_all_layers_of_a_node_stay_float_whatever_they_are_called(self, name: str) -> None:
        library, notes = fake_tensorrt.load(name)
        exact = frozenset({"clip", "shape"})
        build_plan(library, decomposed(), options("fp16", typing="weak"), float32_layers=exact)
        conv, low, high, shape, relu = (notes.network.get_layer(index) for index in range(5))
        assert "clip" not in (low.name, high.name)
        assert [layer.precision.name for layer in (low, high)] == ["FLOAT", "FLOAT"]
        # TensorRT 8.6: «cannot use precision Float for layer that computes indices»
        assert [layer.precision for layer in (conv, shape, relu)] == [None] * 3
        assert shape._types == {}

    def test_before_a_build_all_layers_of_a_node_are_listed_as_float(self) -> None:
        library, _notes = fake_tensorrt.load("8.6.1")
        layers = list_network(library, decomposed(), options("fp16"), float32_layers=frozenset({"clip"}))
        assert [layer.precision for layer in layers] == ["Half", "Float", "Float", "Half", "Half"]

    @pytest.mark.parametrize(("name", "precision"), [("10.3.0", "fp16"), ("8.6.1", "fp32")])
    def test_nothing_is_said_of_layers_where_none_is_told(
        self, name: str, precision: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        library, _notes = fake_tensorrt.load(name)
        list_network(library, plain(), options(precision), float32_layers=frozenset({"softmax"}))
        build_plan(library, plain(), options(precision), float32_layers=frozenset({"softmax"}))
        assert caplog.records == []

    def test_where_no_kernel_obeys_layers_choose_and_the_user_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        library, notes = fake_tensorrt.load("8.6.1")
        notes.obeys = False
        build_plan(library, plain(), options("fp16"), float32_layers=frozenset({"relu"}))
        assert "PREFER_PRECISION_CONSTRAINTS" in notes.flags
        assert "TensorRT 8.6.1 cannot keep all scores in FP32; compare what is read with --fp32" in caplog.text

    def test_a_failed_build_keeps_nothing_of_tensorrts(self) -> None:
        """TensorRT 8.6 on an H100: what a traceback still held crashed the process at its end."""
        library, notes = fake_tensorrt.load("8.6.1")
        notes.build_fails = "no"
        made: list[weakref.ref[Any]] = []
        notes.on_build = lambda config: made.extend(weakref.ref(part) for part in (config, notes.network))
        with pytest.raises(EngineError) as caught:
            build_plan(library, plain(), options())
        notes.network = notes.config = None
        notes.log_error = print
        assert caught.value.__traceback__
        assert [part() for part in made] == [None, None]

    def test_a_plan_that_does_not_load_is_an_error(self) -> None:
        library, notes = fake_tensorrt.load("10.3.0")
        notes.loads = False
        with pytest.raises(EngineError, match=r"cannot load what it built \(out of memory\); lower --max-batch"):
            build_plan(library, plain(), options())

    def test_a_builder_that_does_not_start(self) -> None:
        library, _notes = fake_tensorrt.load("8.6.1")

        def refuse(logger: Any) -> None:
            logger.log(library.module.ILogger.Severity.INTERNAL_ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

        library.module.Builder = refuse
        with pytest.raises(EngineError, match=r"does not start \(CUDA initialization failure .*needs a working GPU"):
            build_plan(library, plain(), options())

    def test_the_reason_stands_before_the_last_error(self) -> None:
        library, notes = fake_tensorrt.load("10.3.0")
        notes.build_fails = "no implementation for node conv"
        notes.on_build = lambda config: notes.log_error("out of memory")
        with pytest.raises(
            EngineError, match=r"\(out of memory / no implementation for node conv\); lower --max-batch"
        ):
            build_plan(library, plain(), options())

    def test_more_workspace_than_there_is(self) -> None:
        library, _notes = fake_tensorrt.load("10.3.0")
        with pytest.raises(EngineError, match="does not take 99999 MiB; give less"):
            build_plan(library, plain(), options(workspace_mib=99_999))

    def test_a_timing_cache_is_read(self, tmp_path: Path) -> None:
        library, notes = fake_tensorrt.load("10.3.0")
        cache = tmp_path / "times.cache"
        cache.write_bytes(b"earlier")
        build_plan(library, plain(), options(), timing_cache=cache)
        assert notes.config._cache.serialize() == b"earlier"
        assert cache.read_bytes() == b"times"

    def test_a_foreign_timing_cache_is_replaced(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        library, notes = fake_tensorrt.load("8.6.1")
        cache = tmp_path / "times.cache"
        cache.write_bytes(notes.foreign_cache)
        build_plan(library, plain(), options(), timing_cache=cache)
        assert notes.config._cache.serialize() == b""
        assert "not a timing cache of TensorRT 8.6.1 on this GPU (it does not say why); starting" in caplog.text
        assert cache.read_bytes() == b"times"

    def test_a_timing_cache_that_cannot_be_written_costs_no_engine(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        library, _notes = fake_tensorrt.load("8.6.1")
        assert build_plan(library, plain(), options(), timing_cache=tmp_path / "no" / "times.cache").data == b"plan"
        assert "its folder does not exist" in caplog.text

    def test_a_failed_build_leaves_the_timing_cache_alone(self, tmp_path: Path) -> None:
        library, notes = fake_tensorrt.load("10.3.0")
        notes.build_fails = "no"
        cache = tmp_path / "times.cache"
        cache.write_bytes(b"earlier")
        with pytest.raises(EngineError):
            build_plan(library, plain(), options(), timing_cache=cache)
        assert cache.read_bytes() == b"earlier"

    def test_a_calibrator_is_attached(self) -> None:
        library, notes = fake_tensorrt.load("8.6.1")
        calibrator = object()
        build_plan(library, plain(), options("int8"), calibrator=calibrator)
        assert notes.config.int8_calibrator is calibrator
        assert "calibration profile" in notes.events

    def test_warnings_reach_the_verbose_log_only(self, caplog: pytest.LogCaptureFixture) -> None:
        library, _notes = fake_tensorrt.load("10.3.0")
        caplog.set_level(logging.INFO)
        log = trt_builder._Log().connect(library.module)
        log.log(library.module.ILogger.Severity.WARNING, "half is not enough")
        assert [(record.levelname, record.message) for record in caplog.records] == [
            ("INFO", "TensorRT: half is not enough")
        ]


class TestInterrupt:
    def test_ctrl_c_asks_the_build_to_stop(self) -> None:
        library, notes = fake_tensorrt.load("10.3.0")
        asked: list[bool] = []

        def slow(config: Any) -> None:
            monitor = config.progress_monitor
            monitor.phase_start("Building engine", None, 1000)
            os.kill(os.getpid(), signal.SIGINT)
            for step in range(1000):
                asked.append(monitor.step_complete("Building engine", step))
                if not asked[-1]:
                    return
                threading.Event().wait(0.01)

        notes.on_build = slow
        with pytest.raises(KeyboardInterrupt):
            build_plan(library, plain(), options())
        assert asked[0]
        assert not asked[-1]
        assert threading.active_count() == 1 or all(thread.name != "build" for thread in threading.enumerate())

    def test_errors_come_out_of_the_thread(self) -> None:
        def fail() -> None:
            raise EngineError("no")

        with pytest.raises(EngineError, match="no"):
            BuildWatch("x", asks=True).run(fail)

    def test_nested_phases_make_one_fraction(self) -> None:
        watch = BuildWatch("x", asks=True)
        watch.start_phase("all", None, 4)
        watch.complete_step("all", 0)
        watch.start_phase("part", "all", 2)
        watch.complete_step("part", 0)
        assert watch.fraction == 0.25 + 0.5 * 0.25
        watch.finish_phase("part")
        watch.complete_step("all", 3)
        assert watch.fraction == 1


def plain_with_open_height() -> bytes:
    model = onnx.load_model_from_string(plain())
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return bytes(model.SerializeToString())


class TestTensorRTRTX:
    """Real builds, ahead of time, on this CPU."""

    @pytest.fixture
    def library(self) -> TensorRT:
        pytest.importorskip("tensorrt_rtx")
        return load_library("tensorrt-rtx")

    @pytest.fixture
    def calibration(self) -> CalibrationSet:
        canvases = np.random.default_rng(2).integers(0, 256, (4, 48, 160, 3), np.uint8)
        crop = LabelledCrop(Path("a.png"), "a")
        return CalibrationSet(Path(), (crop,) * 4, canvases, np.full(4, 160, np.int32), ())

    def build(self, library: TensorRT, model: bytes, precision: str, *targets: str) -> BuiltPlan:
        wanted = options(precision, targets=targets)
        check_options(library, wanted)
        return build_plan(library, model, wanted)

    @pytest.mark.parametrize("targets", [("sm_86",), ("sm_89", "sm_120"), ()])
    def test_builds_for_targets(self, library: TensorRT, targets: tuple[str, ...]) -> None:
        plan = self.build(library, plain(), "fp32", *targets)
        assert len(plan.data) > 1000
        assert convolution_precisions(plan.layers, ["conv"]) == {"conv": "Float"}

    def test_half_is_half(self, library: TensorRT) -> None:
        plan = self.build(library, half(), "fp16", "sm_86")
        assert convolution_precisions(plan.layers, ["conv"]) == {"conv": "Half"}

    @pytest.mark.parametrize("target", ["sm_86", "sm_120"])
    def test_int8_is_int8(self, library: TensorRT, target: str) -> None:
        plan = self.build(library, quantised(), "int8", target)
        assert convolution_precisions(plan.layers, ["conv1", "conv2"]) == {"conv1": "Int8", "conv2": "Int8"}

    def test_lists_a_network(self, library: TensorRT) -> None:
        layers = list_network(library, quantised(), options("int8"))
        found = {layer.name: layer.precision for layer in layers}
        assert (found["conv1"], found["conv2"], found["relu1"]) == ("Int8", "Int8", "Half")

    @pytest.mark.parametrize(
        ("operator", "message"),
        [("Foo", r"node 'relu' \(Foo\).*Plugin not found.*; update TensorRT"), ("Det", r"node 'relu' \(Det\)")],
    )
    def test_names_what_it_cannot_parse(self, library: TensorRT, operator: str, message: str) -> None:
        model = onnx.load_model_from_string(plain())
        model.graph.node[1].op_type = operator
        with pytest.raises(EngineError, match=message):
            self.build(library, model.SerializeToString(), "fp32", "sm_86")

    def test_junk_is_no_model(self, library: TensorRT) -> None:
        with pytest.raises(EngineError, match="cannot parse the ONNX file"):
            self.build(library, b"junk", "fp32", "sm_86")

    @pytest.mark.parametrize(
        ("target", "precision"), [("sm_80", "fp32"), ("sm_89", "fp16"), ("sm_80", "int8"), ("sm_120", "int8")]
    )
    def test_the_tiny_model(self, library: TensorRT, calibration: CalibrationSet, target: str, precision: str) -> None:
        wanted = options(precision, targets=(target,))
        recipe = Recipe() if precision == "int8" else None
        backend = TensorRTBackend(library, TensorRTOptions(wanted, row_lstm="loop"))
        graphs = backend.prepare(load_source(TINY), calibration, recipe)
        plans = {name: build_plan(library, graph.SerializeToString(), wanted) for name, graph in graphs}
        backbone = [
            node.name
            for node in graphs.encoder.graph.node
            if node.name.startswith("/backbone") and node.op_type == "Conv"
        ]
        first, *others = convolution_precisions(plans["encoder"].layers, backbone).values()
        whole = {"fp32": "Float", "fp16": "Half", "int8": "Half"}[precision]
        assert first == whole  # three channels of pixels are never quantised
        assert set(others) == {"Int8" if precision == "int8" else whole}
        assert whole in summarise(plans["decoder"].layers)

    def test_turing_has_no_float_products(self, library: TensorRT) -> None:
        """In a process of its own: after this failure TensorRT-RTX 1.7 takes the next INT8 network for FP16, once."""
        code = "from tests.convert.engine.trt.test_builder import build_for_turing; build_for_turing()"
        root = Path(__file__).parents[4]
        path = os.pathsep.join([str(root), str(root / "runtime")])
        ran = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        assert ran.stderr.rstrip().splitlines()[-1].endswith("leave sm_75 out of the targets, or build with --fp16")


def build_for_turing() -> None:
    """Multiplies matrices in FP32, which TensorRT-RTX does not do there."""
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 8] x) => (float[N, 8] y) { y = MatMul (x, w) }'
    model = _with_weights(text, w=np.ones((8, 8), np.float32))
    build_plan(load_library("tensorrt-rtx"), model, options(targets=("sm_75",)))
