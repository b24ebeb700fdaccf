"""The decode kernel reads what ONNX Runtime reads, and computes what PyTorch computes."""

import ctypes
from dataclasses import asdict

import numpy as np
import pytest
from conftest import Words
from emulation import GPU, LIGHT, SHUFFLED, Scratch, decode, library
from reference import Arrays, choices, logits_after, rounded

from robustscanner.errors import EngineError
from robustscanner.gpu.kernels import DecodeCall, DecodeSizes, Room, plan_launch

LOGITS = {False: 1e-4, True: 1e-2}  # float, half


def check_choices(words: Words, memory: Arrays, found: Arrays, rows: range) -> None:
    """Every word is what its logits say, with the mask and the CTC columns of the memory, then pad and 1."""
    charset, steps = words.model.spec.charset, words.model.spec.network.max_length
    weight = found["ctc_weight"].item()
    for word in rows:
        columns = np.concatenate([memory["labels"][word], memory["blanks"][word]], 1) if "labels" in memory else None
        scoring = {"allowed": memory.get("allowed"), "posteriors": columns, "ctc_weight": weight}
        tokens, scores = choices(found["logits"][word], charset, **scoring)
        length = found["lengths"][word]
        assert found["tokens"][word].tolist() == tokens + [charset.pad_id] * (steps - length)
        np.testing.assert_allclose(found["scores"][word, :length], scores, atol=2e-5)
        assert (found["scores"][word, length:] == 1).all()


def largest_difference(words: Words, memory: Arrays, found: Arrays, *, half: bool) -> float:
    """Of logits, between the kernel and PyTorch on the same numbers; of 64 words at most."""
    decoder = rounded(words.model.decoder) if half else words.model.decoder
    some, most = slice(0, 64), found["lengths"].max()
    memory = {name: array[some] for name, array in memory.items()} | {"position": memory["position"][some, :most]}
    expected = logits_after(decoder, memory, found["tokens"][some, :most], words.model.spec.charset.start_id)
    got = found["logits"][some, :most]
    steps = np.arange(most) < found["lengths"][some, None]
    assert not np.isnan(got[steps]).any()
    return float(np.abs(got[steps] - expected[steps]).max())


@pytest.mark.parametrize(("half", "clusters"), [(False, False), (True, True)], ids=["float-grid", "half-clusters"])
def test_reads_500_crops_as_onnx_runtime(edge: Words, half: bool, clusters: bool) -> None:
    memory = edge.part(slice(None), half=half)
    found = decode(memory, edge.kernel_weights(half=half), edge.sizes, clusters=clusters, groups=2, tile=8)
    assert found["tokens"].tolist() == edge.tokens.tolist()
    np.testing.assert_allclose(found["scores"], edge.scores, atol=1e-2 if half else 1e-4)
    assert largest_difference(edge, memory, found, half=half) < LOGITS[half]
    assert set(found["lengths"]) >= set(range(2, 15))


@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_reads_r31_as_onnx_runtime(r31: Words, batch: int, half: bool) -> None:
    memory = r31.part(slice(16 - batch, None), half=half)
    found = decode(memory, r31.kernel_weights(half=half), r31.sizes, clusters=batch > 1, groups=2, tile=4)
    if not half:  # random weights: a rounding may say another letter
        assert found["tokens"].tolist() == r31.tokens[16 - batch :].tolist()
    check_choices(r31, memory, found, range(batch))
    assert largest_difference(r31, memory, found, half=half) < LOGITS[half]


def test_any_number_of_groups_and_any_tile_give_the_same(edge: Words) -> None:
    memory, weights = edge.part(slice(0, 16), half=True), edge.kernel_weights(half=True)
    expected = decode(memory, weights, edge.sizes)
    for groups, tile, clusters in ((1, 8, True), (3, 2, False), (2, 3, True)):
        found = decode(memory, weights, edge.sizes, groups=groups, tile=tile, clusters=clusters)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


def test_keys_and_values_may_lie_either_way(edge: Words) -> None:
    memory, weights = edge.part(slice(0, 5), half=True), edge.kernel_weights(half=True)
    turned = memory | {n: np.ascontiguousarray(memory[n].transpose(0, 2, 1)) for n in ("keys", "values")}
    expected, found = (decode(given, weights, edge.sizes, tile=5) for given in (memory, turned))
    np.testing.assert_array_equal(found["logits"], expected["logits"])


@pytest.mark.parametrize("clusters", [False, True])
def test_the_threads_of_a_gpu(edge: Words, clusters: bool) -> None:
    """Shuffles among lanes and warps; and one word by the very 2,048 threads of a group on a GPU."""
    weights, short = (
        edge.kernel_weights(half=True),
        int((edge.tokens != edge.sizes["end_id"]).cumprod(1).sum(1).argmin()),
    )
    for config, rows, tile in ((SHUFFLED, [0, 3, short], 2), (GPU, [short], 1)):
        memory = edge.part(rows, half=True)
        found = decode(memory, weights, edge.sizes, config=config, clusters=clusters, tile=tile)
        assert found["tokens"].tolist() == edge.tokens[rows].tolist()
        assert largest_difference(edge, memory, found, half=True) < LOGITS[True]


def test_words_of_1_to_39_letters(edge: Words) -> None:
    """The mask says where each may end."""
    steps, classes, end = edge.sizes["steps"], len(edge.weights["classifier_bias"]), edge.sizes["end_id"]
    weights = edge.kernel_weights(half=False)
    for letters in range(1, steps):
        allowed = np.zeros((steps, classes), np.float32)
        allowed[:letters, end] = -1e9
        allowed[letters] = -1e9
        allowed[letters, end] = 0
        memory = {**edge.part([letters], half=False), "allowed": allowed}
        found = decode(memory, weights, edge.sizes, clusters=letters % 2 == 1)
        assert found["lengths"].tolist() == [letters + 1]
        check_choices(edge, memory, found, range(1))
        assert largest_difference(edge, memory, found, half=False) < LOGITS[False]


def test_an_alphabet(edge: Words) -> None:
    """A mask of one row holds for every step."""
    allowed = np.full((1, len(edge.weights["classifier_bias"])), -1e9, np.float32)
    allowed[0, :10] = allowed[0, edge.sizes["end_id"]] = 0
    memory = {**edge.part(slice(0, 8), half=False), "allowed": allowed}
    found = decode(memory, edge.kernel_weights(half=False), edge.sizes, tile=8)
    check_choices(edge, memory, found, range(8))
    assert set(np.unique(found["tokens"])) <= {*range(10), edge.sizes["end_id"], edge.sizes["pad_id"]}


def posteriors_of(words: int, columns: int, classes: int, tokens: np.ndarray, end: int) -> np.ndarray:
    """CTC posteriors (N, U, K + 1) of text that is nearly `tokens`, loud and quiet by turns; blank after the word."""
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 1.5, (words, columns, classes + 1))
    raw[..., -1] += 3
    for word in range(words):
        said = tokens[word][: int((tokens[word] != end).cumprod().sum())]
        places = np.linspace(0, columns * 3 // 4 - 1, len(said)).astype(int)
        raw[word, places, said] += rng.uniform(2, 9, len(said))
    found = np.exp(raw) / np.exp(raw).sum(-1, keepdims=True)
    found[:, columns * 3 // 4 :] = np.eye(classes + 1)[-1]
    return found.astype(np.float32)


@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
def test_reads_jointly_as_onnx_runtime(joint: Words, half: bool) -> None:
    """What CTC's columns say comes from the encoder."""
    memory = joint.part(slice(None), half=half)
    found = decode(memory, joint.kernel_weights(half=half), joint.sizes, groups=2, tile=8, clusters=half)
    if not half:  # random weights: a rounding may say another letter
        assert found["tokens"].tolist() == joint.tokens.tolist()
        np.testing.assert_allclose(found["scores"], joint.scores, atol=1e-3)
    check_choices(joint, memory, found, range(16))
    alone = {name: array for name, array in memory.items() if name not in ("labels", "blanks")}
    without = decode(alone, joint.kernel_weights(half=half), joint.sizes, groups=2, tile=8)
    assert without["tokens"].tolist() != found["tokens"].tolist()  # it has a say


@pytest.mark.parametrize("config", [LIGHT, SHUFFLED])
@pytest.mark.parametrize("weight", [0.3, 0.9])
def test_joint_scoring(edge: Words, config: int, weight: float) -> None:
    count = 24 if config == LIGHT else 2
    classes = len(edge.weights["classifier_bias"])
    posteriors = posteriors_of(count, 80, classes, edge.tokens, edge.sizes["end_id"])
    said = {"labels": posteriors[:, :, :-1].copy(), "blanks": posteriors[:, :, -1:].copy()}
    memory = {**edge.part(slice(0, count), half=False), **said}
    sizes = {**edge.sizes, "ctc_weight": weight}
    found = decode(memory, edge.kernel_weights(half=False), sizes, config=config, tile=8, clusters=weight > 0.5)
    check_choices(edge, memory, found, range(count))
    if config == LIGHT and weight > 0.5:
        assert found["tokens"].tolist() != edge.tokens[:count].tolist()  # it has a say


def test_a_launch_leaves_its_scratch_as_the_next_wants_it(edge: Words) -> None:
    """Also where the numbers of exchanges begin again."""
    scratch, weights = Scratch(), edge.kernel_weights(half=True)
    header = scratch.bytes[:8].view(np.uint32)
    for epoch in (None, 2**32 - 2 * 2**16, None, None):
        header[0] = header[0] if epoch is None else epoch
        for rows in (slice(0, 5), slice(5, 6)):
            found = decode(edge.part(rows, half=True), weights, edge.sizes, groups=2, tile=3, scratch=scratch)
            assert found["tokens"].tolist() == edge.tokens[rows].tolist()
            assert header[1] == 0


def test_a_bad_number_ends_nothing(edge: Words) -> None:
    """Not a number comes out as a score that is none, which the session reports; the launch ends."""
    memory = edge.part(slice(0, 2), half=False)
    memory["keys"][0] = np.nan
    found = decode(memory, edge.kernel_weights(half=False), edge.sizes, tile=2)
    assert np.isnan(found["scores"][0]).any()
    assert found["tokens"][1].tolist() == edge.tokens[1].tolist()


@pytest.mark.parametrize("clusters", [False, True])
@pytest.mark.parametrize("columns", [0, 80])
def test_python_knows_how_much_shared_memory_a_block_takes(clusters: bool, columns: int) -> None:
    for words, places, channels, classes in ((1, 120, 160, 92), (16, 480, 512, 92), (5, 117, 161, 37)):
        sizes = DecodeSizes(words, places, channels, classes, 40, columns)
        launch = plan_launch(sizes, Room(2, 200_000, clusters))
        call = DecodeCall(tile=launch.tile, **asdict(sizes))
        assert launch.shared_bytes == library().robustscanner_decode_shared_bytes(ctypes.byref(call), clusters)


def test_a_launch_fits_the_gpu_or_says_why_not() -> None:
    sizes = DecodeSizes(16, 120, 160, 92, 40)
    assert plan_launch(sizes, Room(16, 100_000, True)).tile == 1
    assert plan_launch(sizes, Room(2, 227_000, True)).tile == 8
    assert 1 < plan_launch(sizes, Room(2, 60_000, True)).tile < 8
    for room, message in ((Room(0, 100_000, False), "multiprocessors"), (Room(2, 4_000, False), "shared memory")):
        with pytest.raises(EngineError, match=message):
            plan_launch(sizes, room)
    with pytest.raises(EngineError, match="smaller batches"):
        plan_launch(DecodeSizes(1 << 16, 120, 160, 92, 40), Room(2, 227_000, True))
