"""Weight files from strangers: nothing in them runs, sizes are bounded, damage is one line."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from convert.foreign.safe_pickle import Storage, WeightFileError, load_pickle
from convert.foreign.weight_file import open_weight_file
from robustscanner.errors import RobustScannerError


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def read(path: Path) -> object:
    with open_weight_file(path) as file:
        assert isinstance(file.tree, dict)
        return {name: file.array(value) for name, value in file.tree.items() if hasattr(value, "shape")}


def refusal(path: Path) -> str:
    with pytest.raises(WeightFileError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def bare_pickle(evil: object, path: Path) -> None:
    path.write_bytes(pickle.dumps({"backbone.conv1_1.weight": np.zeros(3), "x": evil}, protocol=4))


def zip_pth(evil: object, path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(3)}, "x": evil}, path)


def legacy_pth(evil: object, path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(3)}, "x": evil}, path, _use_new_zipfile_serialization=False)


def tarred_pickle(evil: object, path: Path) -> None:
    add_members(path, {"rec/best_accuracy.pdparams": pickle.dumps({"x": evil}, protocol=2)})


def add_members(path: Path, members: dict[str, bytes], link: str = "") -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if link:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, link, 0
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("save", [bare_pickle, zip_pth, legacy_pth, tarred_pickle])
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.exec"])
def test_nothing_runs(save: Callable[[object, Path], None], name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')"
    evil = {
        "os.system": Calls(os.system, f"touch {marker}"),
        "builtins.eval": Calls(eval, code),
        "builtins.exec": Calls(exec, code),
    }[name]
    pickle.loads(pickle.dumps(evil))
    assert marker.exists()  # the sample does work
    marker.unlink()
    save(evil, tmp_path / "evil.bin")
    assert f"asks to run {name}; not a weight file" in refusal(tmp_path / "evil.bin")
    assert not marker.exists()


def test_the_harmless_looking_are_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "evil.pdparams"
    for program, part in {
        b"c__builtin__\ngetattr\n(cnumpy\nndarray\nX\x04\0\0\0dumptR.": "asks to run builtins.getattr",
        b"cnumpy\nload\n(X\x01\0\0\0atR.": "asks to run numpy.load",
        b"ctorch\nload\n(X\x01\0\0\0atR.": "asks to run torch.load",
        b"\x82\x01.": "asks to run copyreg.extension 1",
        b"cos\npath.join\n.": "asks to run os.path.join",
        b"cx\ny\x1b[2J\n.": "asks to run x.y\\x1b[2J",
        b"Nr\xff\xff\xff\xff.": "",  # a memo index that would allocate 64 GiB in C
        b"\x8e" + struct.pack("<Q", 2**50) + b"a.": "truncated or damaged",
    }.items():
        path.write_bytes(b"\x80\x02" + program)
        if part:
            assert part in refusal(path)
        else:
            with open_weight_file(path) as file:
                assert file.tree is None


def test_names_in_messages_are_printable(tmp_path: Path) -> None:
    (tmp_path / "a.pdparams").write_bytes(b"\x80\x02cx\ny\x1b[2J\n.")
    assert refusal(tmp_path / "a.pdparams").isprintable()


def test_a_storage_cannot_be_changed_after_its_check() -> None:
    """Its count bounds what a tensor may reach; changed later, the tensor would read memory that is not its own."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x64tQ"
    change = b"}X\x05\0\0\0countK\x01sb."
    changed, _ = load_pickle(io.BytesIO(b"\x80\x02" + storage + change))
    assert isinstance(changed, Storage)
    assert changed.count == 100
    shapeless = b"ctorch._utils\n_rebuild_tensor_v2\n(]K\0K\0\x85K\0\x85tR."  # a list as its storage
    with pytest.raises(WeightFileError, match="without a storage"):
        load_pickle(io.BytesIO(b"\x80\x02" + shapeless))


def test_state_does_not_become_attributes(tmp_path: Path) -> None:
    state = OrderedDict(w=np.zeros(2))
    state.keys = "mine"  # type: ignore[method-assign, assignment]
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(state, protocol=2))
    assert list(read(tmp_path / "a.pdparams")) == ["w"]  # type: ignore[call-overload]


def forged_array(shape: tuple[int, ...], kind: str, raw: object) -> bytes:
    """An array whose state is not what NumPy would have written."""
    state = (1, shape, np.dtype(kind), False, raw)
    reconstruct = np.zeros(1).__reduce__()[0]

    class Forged:
        def __reduce__(self) -> tuple[object, ...]:
            return reconstruct, (np.ndarray, (0,), b"b"), state

    return pickle.dumps({"w": Forged()}, protocol=4)


@pytest.mark.parametrize(
    ("shape", "kind", "raw"),
    [
        ((2**20, 2**20), "f4", bytes(4)),
        ((-1,), "f4", b""),
        ((1,), "O", [1]),
        ((1,), "O", bytes(8)),
        ((1,), "V8", bytes(8)),
    ],
)
def test_forged_arrays(shape: tuple[int, ...], kind: str, raw: object, tmp_path: Path) -> None:
    (tmp_path / "a.pdparams").write_bytes(forged_array(shape, kind, raw))
    refusal(tmp_path / "a.pdparams")


def test_a_view_without_end_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "a.pth")
    assert "reaches beyond its storage" in refusal(tmp_path / "a.pth")


def test_tar_members_stay_inside(tmp_path: Path) -> None:
    path, data = tmp_path / "a.tar", pickle.dumps({"w": np.zeros(1)})
    for name in ("../best_accuracy.pdparams", "/tmp/best_accuracy.pdparams", "rec/../../x.pdparams", "C:\\x.pdparams"):
        add_members(path, {name: data})
        assert "points outside of its folder" in refusal(path)
    add_members(path, {"rec/best_accuracy.pdparams": b""}, link="/etc/passwd")
    assert "is a link or device" in refusal(path)
    add_members(path, {"rec/inference.pdiparams": b"", "rec/inference.pdmodel": b""})
    assert "exported inference model" in refusal(path)
    add_members(path, {"a.pdparams": data, "b.pdparams": data})
    assert "holds 2 .pdparams (a.pdparams, b.pdparams)" in refusal(path)


def test_zip_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**7))
    assert "is compressed" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        archive.writestr("../data/0", b"")
    assert "points outside of its folder" in refusal(path)
    torch.save({"w": torch.zeros(2)}, path)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the directory's last entry claims 2 GiB
    data[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    assert "claims to hold more than it is long" in refusal(path)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.pth").open("wb") as file:
        file.write(b"\x80\x04")
        file.truncate(5 << 30)  # sparse: takes no space on the disk
    assert "larger than 4096 MiB" in refusal(tmp_path / "a.pth")


def test_all_number_formats_and_strides(tmp_path: Path) -> None:
    values = torch.arange(24).reshape(1, 2, 3, 4)
    kinds = {"half": values.half(), "bfloat": values.bfloat16(), "double": values.double(), "int": values.int()}
    turned = {"channels_last": values.float().contiguous(memory_format=torch.channels_last), "t": values[0, 0].T}
    parameter = torch.nn.Parameter(values.float())
    save_file({"p": values.float()}, tmp_path / "a.safetensors")
    for zipped in (True, False):
        torch.save(
            {**kinds, **turned, "parameter": parameter}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped
        )
        got = read(tmp_path / "a.pth")
        assert isinstance(got, dict)
        for name, tensor in {**kinds, **turned, "parameter": parameter}.items():
            assert np.array_equal(got[name].astype(np.float32), tensor.detach().float().numpy())
    assert np.array_equal(read(tmp_path / "a.safetensors")["p"], values)  # type: ignore[index]


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_of_numpy(protocol: int, tmp_path: Path) -> None:
    arrays = {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.arange(3, dtype=">f4"), "s": np.zeros(())}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({**arrays, "n": np.float64(1)}, protocol=protocol))
    got = read(tmp_path / "a.pdparams")
    assert isinstance(got, dict)
    assert all(np.array_equal(got[name], array) for name, array in arrays.items())


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("samples")
    for save in (bare_pickle, zip_pth, legacy_pth, tarred_pickle):
        save("harmless", folder / save.__name__)
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_never_a_crash(samples: tuple[Path, dict[str, bytes]], data: st.DataObject) -> None:
    folder, contents = samples
    content = bytearray(contents[data.draw(st.sampled_from(sorted(contents)))])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(1, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "damaged").write_bytes(content)
    with suppress(RobustScannerError), open_weight_file(folder / "damaged") as file:
        items = file.tree.items() if isinstance(file.tree, dict) else ()
        for value in [value for _, value in items if hasattr(value, "shape")]:
            file.array(value)
