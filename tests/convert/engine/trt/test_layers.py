"""What TensorRT says about the layers of an engine."""

import json

import pytest

from convert.engine.trt.layers import (
    Layer,
    LayerTensor,
    convolution_precisions,
    layers_to_json,
    make_layer,
    parse_inspector,
    parse_log,
    summarise,
    type_name,
)

# Lines of TensorRT-RTX 1.7, shortened.
LOG = """Layers:
Name: __mye1_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: 
Name: __myl_MulMinMaxRounCast_myl0_3, LayerType: kgen, Inputs: [ { Name: a_1, Dimensions: [-1,4,8,8], Strides: [256,1,32,4], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], Constants: [ { Name: s, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: q_1, Dimensions: [-1,4,8,8], Strides: [256,1,32,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: x, StreamId: 0, Metadata: [ONNX Layer: /a/q][ONNX Layer: /b/Conv]
Name: /b/Conv_myl0_4, LayerType: correlation, Inputs: [ { Name: q_1, Dimensions: [-1,4,8,8], Strides: [256,1,32,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [], Outputs: [ { Name: b_1, Dimensions: [-1,8,8,8], Strides: [512,1,64,8], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }, { Name: c_1, Dimensions: [], Strides: [], StrideOrder: [], Datatype: Int64, Format: (Linear) Row major linear format }], TacticName: x, StreamId: 0, Metadata: [ONNX Layer: /b/Conv][ONNX Layer: /b/dq]

I/O Tensors:

Engine Metadata:
 Multi-Device: Disabled
"""  # noqa: E501, W291

OLD = {  # TensorRT 8.6 and 10 write types into the format, and 8.6 knows ONNX nodes by the layer's name only
    "Layers": [
        {
            "Name": "/a/Conv + /a/Relu",
            "LayerType": "CaskConvolution",
            "Inputs": [
                {
                    "Name": "x",
                    "Dimensions": [1, 32, 8, 8],
                    "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format",
                }
            ],
            "Outputs": [
                {
                    "Name": "y",
                    "Dimensions": [1, 32, 8, 8],
                    "Format/Datatype": "Channel major FP16 format where channel % 8 == 0",
                }
            ],
            "ParameterType": "Convolution",
        },
    ],
    "Bindings": ["x", "y"],
}
NEW = {
    "Layers": [
        {
            "Name": "/a/Conv_myl0_1",
            "LayerType": "conv",
            "Inputs": [{"Name": "x", "Dimensions": [-1, 32, 8, 8], "Datatype": "Half", "Format": "Row major"}],
            "Outputs": [{"Name": "y", "Dimensions": [-1, 32, 8, 8], "Datatype": "Half", "Format": "Row major"}],
            "Metadata": "[ONNX Layer: /a/Conv]\u001e[ONNX Layer: /a/Relu]",
        }
    ]
}


def test_line_breaks_inside_strings_as_tensorrt_8_6_leaves_them() -> None:
    text = json.dumps(OLD).replace('"/a/Conv + /a/Relu"', '"/a/Conv +\n\t/a/Relu"')
    assert [layer.name for layer in parse_inspector(text)] == ["/a/Conv +\n\t/a/Relu"]


def test_the_log_of_a_build() -> None:
    empty, quantise, conv = parse_log(LOG)
    assert (empty.kind, empty.precision, empty.nodes) == ("shape_call", "", ())
    assert (quantise.name, quantise.precision) == ("__myl_MulMinMaxRounCast_myl0_3", "Half")
    assert quantise.inputs == (LayerTensor("a_1", "Half", (-1, 4, 8, 8)),)  # constants are not counted among them
    assert conv == Layer(
        name="/b/Conv_myl0_4",
        kind="correlation",
        precision="Int8",
        inputs=(LayerTensor("q_1", "Int8", (-1, 4, 8, 8)),),
        outputs=(LayerTensor("b_1", "Float", (-1, 8, 8, 8)), LayerTensor("c_1", "Int64", ())),
        nodes=("/b/Conv", "/b/dq"),
    )


def test_no_log_no_layers() -> None:
    assert parse_log("") == ()


def test_the_inspector_of_older_versions() -> None:
    (layer,) = parse_inspector(json.dumps(OLD))
    assert (layer.precision, layer.nodes) == ("Int8", ("/a/Conv", "/a/Relu"))
    assert [tensor.type for tensor in layer.outputs] == ["Half"]
    assert layer.is_convolution


def test_the_inspector_of_newer_versions() -> None:
    (layer,) = parse_inspector(json.dumps(NEW))
    assert (layer.precision, layer.nodes) == ("Half", ("/a/Conv", "/a/Relu"))


def test_names_alone_tell_nothing() -> None:
    assert parse_inspector(json.dumps({"Layers": ["/a/Conv + /a/Relu"], "Bindings": []})) == ()


def test_a_convolution_counts_before_what_prepares_its_input() -> None:
    layers = parse_log(LOG)
    for order in (layers, layers[::-1]):
        found = convolution_precisions(order, ["/b/Conv", "/none/Conv"])
        assert found == {"/b/Conv": "Int8", "/none/Conv": ""}


def test_a_summary_leaves_bookkeeping_out() -> None:
    count = make_layer("n", "kgen", [LayerTensor("i", "Int64", ())], [], [])
    assert summarise([count, *parse_log(LOG), *parse_log(LOG)[2:]]) == {"Int8": 2, "Half": 1}


@pytest.mark.parametrize("header", [{}, {"source": "build log", "device": {"name": "x"}}])
def test_json(header: dict[str, object]) -> None:
    text = layers_to_json(parse_log(LOG), header)
    data = json.loads(text)
    assert {key: value for key, value in data.items() if key != "layers"} == header
    assert data["layers"][2]["nodes"] == ["/b/Conv", "/b/dq"]
    assert sum('"name": "/b/Conv_myl0_4"' in line for line in text.splitlines()) == 1
    assert '"kind": "correlation"' in next(line for line in text.splitlines() if "/b/Conv_myl0_4" in line)


def test_json_without_layers() -> None:
    assert json.loads(layers_to_json([], {"source": "x"})) == {"source": "x", "layers": []}


@pytest.mark.parametrize(
    ("text", "name"),
    [("FLOAT", "Float"), ("Row major linear FP32", "Float"), ("BF16", "BFloat16"), ("Int4", "Int4"), ("E8M0", "E8M0")],
)
def test_types_have_one_name(text: str, name: str) -> None:
    assert type_name(text) == name
