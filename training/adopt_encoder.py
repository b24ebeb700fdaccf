"""Starts a `small` model from PP-OCRv6 small's visual encoder, read from its ONNX file; needs no Paddle."""

import argparse
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "training"

from robustscanner.errors import SpecError
from robustscanner.program import exit_status

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from training.config import TrainConfig
    from training.model.robustscanner import RobustScanner

EPILOG = """examples:
  pip install 'rapidocr==3.10.0'    # its wheel holds the file; Apache-2.0, PaddlePaddle's authors
  python training/adopt_encoder.py -o start.safetensors
  python training/adopt_encoder.py PP-OCRv6_rec_small.onnx -o start.safetensors
  python training/adopt_encoder.py rapidocr-3.10.0-py3-none-any.whl -o greek.safetensors --characters "$(cat greek.txt)"
  python training/adopt_encoder.py -o start.safetensors --config training/configs/edge.yaml    # fewer of its blocks
"""
ORIGIN = "PP-OCRv6_rec_small.onnx by PaddlePaddle's authors, Apache-2.0"
_FILE = "rapidocr/models/PP-OCRv6_rec_small.onnx"
_NEVER = -30.0  # bias of classes that CTC must not choose: end and unknown

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One layer of the file with weights, batch norm folded in."""

    node: str
    weight: Array
    bias: Array


@dataclass(frozen=True)
class Encoder:
    """What the file holds: layers in the order in which they compute, the last one the CTC classifier."""

    layers: tuple[Layer, ...]
    characters: tuple[str, ...]  # of the classifier, from class 1 on; class 0 is the blank


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, nargs="?", metavar="WHEEL_OR_ONNX", help="default: of the installed rapidocr"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.safetensors")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="default: training/configs/small.yaml")
    parser.add_argument("--characters", metavar="TEXT", help="what the model is to read (default: the config's)")
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to do."""
    arguments = parse_arguments()
    return exit_status(lambda: adopt(arguments))


def adopt(arguments: argparse.Namespace) -> None:
    """Reads, checks, copies, saves.

    Raises:
        RobustScannerError: a file that is not the one expected, characters that it does not know, an existing output.
    """
    from robustscanner.engine import file_sha256
    from robustscanner.output import check_output
    from training.checkpoint import save_checkpoint
    from training.model.robustscanner import RobustScanner

    check_output(arguments.output, force=arguments.force)
    config = _config(arguments)
    source = arguments.source or _installed()
    encoder = read_encoder(_onnx_bytes(source), str(source))
    model = RobustScanner(config.spec)
    copy_weights(encoder, model, str(source))
    step = {
        "step": "adopt",
        "tool": "training/adopt_encoder.py",
        "input": source.name,
        "input_sha256": file_sha256(source),
        "origin": ORIGIN,
    }
    save_checkpoint(arguments.output, model, [step])
    count = sum(p.numel() for p in model.backbone.parameters())
    print(f"{arguments.output}: {count / 1e6:.1f} million weights of {ORIGIN}; the decoder is untrained")


def read_encoder(data: bytes, where: str) -> Encoder:
    """Layers and characters of an ONNX file.

    Raises:
        SpecError: not an ONNX file, or one without the characters that it reads.
    """
    import onnx

    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf's own exception class differs between its releases
        raise SpecError(f"{where}: not an ONNX file ({str(error).splitlines()[0]}); give {Path(_FILE).name}") from None
    names = {entry.key: entry.value for entry in model.metadata_props}.get("character", "")
    if not names:
        raise SpecError(f"{where}: does not say which characters it reads; give {Path(_FILE).name}")
    return Encoder(tuple(_layers(model.graph)), (*names.split("\n"), " "))


def copy_weights(encoder: Encoder, model: "RobustScanner", where: str) -> None:
    """Copies encoder and CTC classifier, every shape checked; a network with fewer blocks takes those it has.

    Raises:
        SpecError: a shape that does not fit, or characters that the file does not read.
    """
    import torch

    from training.model.small import SmallNet

    whole = SmallNet()
    targets = list(_in_order(whole))
    *layers, classifier = encoder.layers
    if len(layers) != len(targets):
        raise SpecError(f"{where}: has {len(layers)} layers with weights, not {len(targets)}; give {Path(_FILE).name}")
    for layer, (name, module) in zip(layers, targets, strict=True):
        _copy(layer, name, module, where)
    known = whole.state_dict()
    own = {name: known[name] for name in model.backbone.state_dict() if not name.startswith(SmallNet.own)}
    model.backbone.load_state_dict(own, strict=False)
    rows, biases = _classifier_rows(encoder, classifier, model.spec.charset, where)
    if model.ctc_head is not None:
        with torch.no_grad():
            model.ctc_head.weight.copy_(torch.from_numpy(rows))
            model.ctc_head.bias.copy_(torch.from_numpy(biases))


def _config(arguments: argparse.Namespace) -> "TrainConfig":
    from training.config import load_config

    path = arguments.config or Path(__file__).parent / "configs" / "small.yaml"
    return load_config(path, [f"characters={arguments.characters}"] if arguments.characters else [])


def _installed() -> Path:
    """The file in the installed wheel; nothing of the package is run."""
    from importlib.util import find_spec

    spec = find_spec("rapidocr")
    path = Path(spec.origin).parents[1] / _FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise SpecError("rapidocr is not installed, or another version; pip install 'rapidocr==3.10.0', or name a file")
    return path


def _onnx_bytes(source: Path) -> bytes:
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as wheel:
                return wheel.read(_FILE)
        return source.read_bytes()
    except KeyError:
        raise SpecError(f"{source}: holds no {_FILE}; take the wheel of rapidocr 3.10.0") from None
    except OSError as error:
        raise SpecError(f"{source}: {error.strerror or error}; check the path") from None


def _layers(graph: "onnx.GraphProto") -> Iterator[Layer]:
    """Convolutions, matrix products and layer norms with constant weights; a norm right after a layer is folded in."""
    from onnx import numpy_helper

    arrays: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        constants = [arrays[name] for name in node.input if name in arrays]
        if node.op_type not in ("Conv", "MatMul", "Mul") or not constants:
            continue
        follower = readers[node.output[0]][0]
        beside = [arrays[name] for name in follower.input if name in arrays]
        weight = constants[0]
        if node.op_type == "Mul" and not (weight.ndim == 1 and weight.size > 1):
            continue
        if follower.op_type == "BatchNormalization":
            epsilon = next(attribute.f for attribute in follower.attribute if attribute.name == "epsilon")
            scale, bias, mean, variance = beside
            factor = scale / np.sqrt(variance + epsilon)
            yield Layer(node.output[0], weight * factor[:, None, None, None], bias - mean * factor)
        elif follower.op_type == "Add" and beside:
            yield Layer(node.output[0], weight.T if node.op_type == "MatMul" else weight, beside[0].reshape(-1))


def _in_order(net: "nn.Module") -> "Iterator[tuple[str, nn.Module]]":
    """Modules with weights of the borrowed part, in the order in which they compute and are defined."""
    for name, module in net.named_modules():
        if name.split(".")[0] in ("stem", "stages", "neck") and hasattr(module, "weight"):
            yield name, module


def _copy(layer: Layer, name: str, module: Any, where: str) -> None:
    import torch

    for kind, array in (("weight", layer.weight), ("bias", layer.bias)):
        parameter = getattr(module, kind)
        if tuple(parameter.shape) != array.shape:
            raise SpecError(
                f"{where}: {layer.node} has a {kind} of {list(array.shape)}, {name} takes {list(parameter.shape)}; "
                f"give {Path(_FILE).name}"
            )
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(array.copy()))


def _classifier_rows(encoder: Encoder, classifier: Layer, charset: Any, where: str) -> tuple[Array, Array]:
    """Rows of the classifier for our classes, blank last."""
    place = {character: index for index, character in enumerate(encoder.characters, 1)}
    if len(place) >= len(classifier.weight):
        raise SpecError(f"{where}: names more characters than its classifier has classes; give {Path(_FILE).name}")
    rows = np.zeros((charset.class_count + 1, classifier.weight.shape[1]), np.float32)
    biases = np.full(len(rows), _NEVER, np.float32)
    classes = [(i, token) for i, token in enumerate(charset.tokens[: charset.class_count])]
    characters = [(i, token) for i, token in classes if i not in charset.special_ids]
    if missing := [token for _, token in characters if token not in place]:
        raise SpecError(f"{where}: does not know {''.join(missing)!r}; leave them out of the characters")
    for row, source in [*((i, place[token]) for i, token in characters), (len(rows) - 1, 0)]:
        rows[row], biases[row] = classifier.weight[source], classifier.bias[source]
    return rows, biases


if __name__ == "__main__":
    sys.exit(main())
