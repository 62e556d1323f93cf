"""Damaged and hostile model files, checkpoints and data: the result of before, or one line."""

import io
import json
import random
import struct
import zipfile

import numpy as np
import pytest

TRAIN = ["train", "X.npy", "--checkpoint", "c.npz", "--resume", "--output", "resumed.npz",
         "--tol", "1e-3", "--max-iter", "8"]  # fmt: skip


def refused(result, message=""):
    """Whether a command ended in one line and status 2."""
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    return True


def damages(whole):
    """The bytes of a file, truncated and with single bits flipped, at places drawn at random."""
    rng = random.Random(0)
    yield from (whole[: rng.randrange(len(whole))] for _ in range(50))
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)


# -------------------------------------------------------------------------- truncated, bits flipped


def test_truncated_and_flipped_models(iris, command):
    whole, output = (iris / "m.npz").read_bytes(), iris / "out.csv"
    np.savez(iris / "rows.npz", X=np.load(iris / "iris.npz")["X"][::9])
    predict = ("predict", "m.npz", "rows.npz", "--proba", "--output", "out.csv")
    assert command(*predict).code == 0
    expected = output.read_bytes()
    n_refused = 0
    for damaged in damages(whole):
        (iris / "m.npz").write_bytes(damaged)
        output.write_bytes(b"as it was")
        result = command(*predict)
        if result.code == 0:
            assert (result.err, output.read_bytes()) == ("", expected)
        else:
            n_refused += 1
            assert refused(result, "m.npz: ")
            assert output.read_bytes() == b"as it was"
        assert (iris / "m.npz").read_bytes() == damaged
    assert n_refused > 150
    assert not list(iris.glob(".*"))


def test_truncated_and_flipped_checkpoints(digits, command, monkeypatch):
    monkeypatch.setattr("fastsoftmax.warmup", lambda dtypes, kernels: None)  # half of the time
    assert command(*TRAIN).code == 0
    errors = command(*TRAIN).err
    assert errors.startswith("going on from iteration 8 in c.npz\nwarning: stopped after 8 ")
    whole, model = (digits / "c.npz").read_bytes(), (digits / "resumed.npz").read_bytes()
    n_refused = 0
    for damaged in damages(whole):
        (digits / "c.npz").write_bytes(damaged)
        (digits / "resumed.npz").write_bytes(b"as it was")
        result = command(*TRAIN)
        written = (digits / "resumed.npz").read_bytes()
        if result.code == 0:
            assert (result.err, members(written)) == (errors, members(model))
        else:
            n_refused += 1
            assert refused(result._replace(out=""), "c.npz: ")
            assert written == b"as it was"
            assert (digits / "c.npz").read_bytes() == damaged
    assert n_refused > 150


def members(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# -------------------------------------------------------------------------------- hostile archives


def archive_of(path):
    """The arrays of a .npz file."""
    with np.load(path) as archive:
        return dict(archive)


def npy(header, data=b"", version=(1, 0), length=None):
    """The bytes of a .npy file with any header."""
    header = header.encode()
    size = struct.pack("<H" if version == (1, 0) else "<I", length or len(header))
    return b"\x93NUMPY" + bytes(version) + size + header + data


def replace_member(path, name, content, method=zipfile.ZIP_STORED):
    """Write other bytes into an archive; None leaves the member out."""
    contents = members(path.read_bytes())
    contents[f"{name}.npy"] = content
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, content in contents.items():
            if content is not None:
                archive.writestr(member, content)


def patch_entries(path, offset, value):
    """Set a two-byte field in each entry of an archive's central directory."""
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + offset : at + offset + 2] = struct.pack("<H", value)
        at = content.find(b"PK\x01\x02", at + 1)
    path.write_bytes(content)


HUGE = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000000), }")
MEMBERS = {
    "missing": None,
    "empty": b"",
    "text": b"no array at all",
    "huge shape": HUGE,
    "shape of 400 digits": HUGE.replace(b"1000000, 1000000000", b"9" * 19),
    "negative shape": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3), }"),
    "long header": npy("{'descr': '<f8'," + " " * 70_000 + "}", version=(2, 0)),
    "longer header than there is": npy("{}", version=(2, 0), length=1 << 31),
    "nested header": npy("(" * 9000),
    "syntax error": npy("{'descr': '<f8', 'fortran_order': False, 'shape': 3L.4 }"),
    "unknown version": npy("{}", version=(9, 0)),
    "unknown dtype": npy("{'descr': '<f3', 'fortran_order': False, 'shape': (), }", bytes(3)),
    "empty elements": npy("{'descr': '<U0', 'fortran_order': False, 'shape': (9999999999,), }"),
    "records": npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", bytes(8)),
    "pickle": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n."),
    "bytes behind the array": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (), }", bytes(9)
    ),
}
READERS = {
    "model": ("predict", "m.npz", "iris.csv"),
    "data": ("evaluate", "m.npz", "iris.npz"),
    "features alone": ("predict", "m.npz", "iris.npz"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", MEMBERS.values(), ids=MEMBERS.keys())
def test_other_bytes_in_a_member(content, reader, iris, command):
    names = {"model": ("coef", "classes", "n_iter", "version"), "data": ("X", "y")}
    for name in names.get(reader, ("X",)):
        path = iris / ("m.npz" if reader == "model" else "iris.npz")
        whole = path.read_bytes()
        replace_member(path, name, content)
        assert refused(command(*READERS[reader]), f"{path.name}: ")
        path.write_bytes(whole)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(8, 1, "encrypted"), (10, 77, "compression method"), (6, 200, "zip file version")],
)
def test_what_zipfile_does_not_read(offset, value, message, reader, iris, command):
    path = iris / ("m.npz" if reader == "model" else "iris.npz")
    patch_entries(path, offset, value)
    assert refused(command(*READERS[reader]), message)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_bombs(method, iris, command, monkeypatch):
    monkeypatch.setattr("fastsoftmax.sources._archives._SMALL_BYTES", 1 << 20)
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1000000), }"
    bomb = npy(header, bytes(12_000_000))
    replace_member(iris / "m.npz", "coef", bomb, method)
    assert refused(command(*READERS["model"]), "that unpack to 12,000,0")
    if method != zipfile.ZIP_DEFLATED:  # that of data packs no more than one-hot rows do
        replace_member(iris / "iris.npz", "X", bomb, method)
        assert refused(command(*READERS["features alone"]), "that unpack to 12,000,0")


def test_unused_members_are_not_read(iris, command, monkeypatch):
    expected = {reader: command(*arguments) for reader, arguments in READERS.items()}
    for name in ("m.npz", "iris.npz"):
        replace_member(iris / name, "unused", b"no array")
    opened, open_member = [], zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile, "open", lambda *a, **b: opened.append(a[1]) or open_member(*a, **b)
    )
    assert {reader: command(*arguments) for reader, arguments in READERS.items()} == expected
    assert opened
    assert "unused.npy" not in opened


def test_headers_that_others_write(iris, command):
    expected = command(*READERS["features alone"])
    X = archive_of(iris / "iris.npz")["X"]
    text = '{"shape":(150L,4L),"fortran_order":True,"descr":"<f8"}\n'
    for version in ((1, 0), (2, 0), (3, 0)):
        replace_member(iris / "iris.npz", "X", npy(text, X.tobytes(order="F"), version))
        assert command(*READERS["features alone"]) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda model: {"coef": model["coef"] * [1, 1, np.float32("nan"), 1]},
        lambda model: {"coef": model["coef"] * np.float32("inf")},
        lambda model: {"coef": model["coef"].astype(complex)},
        lambda model: {"coef": model["coef"].astype(str)},
        lambda model: {"coef": model["coef"].astype(np.float16)},
        lambda model: {"intercept": model["intercept"] * np.float32("nan")},
        lambda model: {"intercept": model["intercept"].astype(float)},
        lambda model: {"classes": np.array([0.0, 1.0, np.nan])},
        lambda model: {"classes": np.array(["a", "b", "a"])},
        lambda model: {"classes": model["classes"].astype("S")},
        lambda model: {name: model[name][:1] for name in ("coef", "intercept", "classes")},
        lambda model: {name: model[name][:0] for name in ("coef", "intercept", "classes")},
        lambda model: {"coef": model["coef"][:, :0], "feature_names": np.array([], dtype=str)},
        lambda model: {"feature_names": np.arange(4)},
        lambda model: {"target": np.array(["species"])},
        lambda model: {"table": np.array("")[None]},
        lambda model: {"table": np.arange(4)},
        lambda model: {"table": np.array(str(model["table"])[:-1])},
        lambda model: {"table": np.array(str(model["table"]).replace("number", "numbers"))},
        lambda model: {"table": np.array(str(model["table"]).replace('"width": 1', '"width": 2'))},
        lambda model: {"table": np.array("[" * 100_000)},
        lambda model: {"table": np.array("5")},
        lambda model: {"spread": np.ones(3)},
        lambda model: {"spread": np.array([1, 2, 3, np.nan])},
        lambda model: {"spread": np.arange(4)},
        lambda model: {"made": np.array("[1]")},
        lambda model: {"made": np.array('{"command": 1}')},
        lambda model: {"made": np.array("[" * 100_000)},
        lambda model: {"made": np.ones(4)},
        lambda model: {"n_iter": np.array("many")},
        lambda model: {"n_iter": np.array([1, 2])},
        lambda model: {"version": np.array("one")},
        lambda model: {"version": np.array(np.nan)},
        lambda model: {"version": np.array(0)},
        lambda model: {"version": np.array(99)},
        lambda model: {"format": np.array(1)},
    ],
)
def test_wrong_values_in_models(change, iris, command):
    model = archive_of(iris / "m.npz")
    np.savez(iris / "m.npz", **{**model, **change(model)})
    assert refused(command(*READERS["model"]), "m.npz: ")


@pytest.mark.parametrize("large", [np.inf, 1e308])
def test_no_warning_before_an_error(large, iris, command):
    data = archive_of(iris / "iris.npz")
    data["X"][3:6, 1] = large, large, -large
    data["y"] = np.array(["setosa", "versicolor", "virginica"])[data["y"]]
    np.savez(iris / "iris.npz", **data)
    for arguments in (*list(READERS.values())[1:], ("train", "iris.npz")):
        assert refused(command(*arguments)._replace(out=""), "column 1: NaN or infinite in float32")


# ------------------------------------------------------------------------------------ checkpoints


def state(name, value):
    def change(header, arrays):
        header["state"][name] = value

    return change


def array(name, function):
    def change(header, arrays):
        arrays[name] = function(arrays[name])

    return change


def shortened(header, arrays):
    for name in ("x", "gradient"):
        arrays[name] = arrays[name][:-1]
    for name in ("steps", "changes"):
        arrays[name] = arrays[name][:, :-1]


def rewritten(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda header, arrays: header.pop("version"),
        lambda header, arrays: header.update(version=2),
        lambda header, arrays: header.update(version=10**400),
        lambda header, arrays: header.pop("run"),
        lambda header, arrays: header.update(state=[1, 2]),
        lambda header, arrays: header["state"].pop("norms"),
        lambda header, arrays: header["state"].update(unknown=1),
        lambda header, arrays: arrays.pop("x"),
        lambda header, arrays: arrays.pop("steps"),
        state("n_iter", 1.5),
        state("n_iter", -1),
        state("n_iter", 10**400),
        state("loss", float("nan")),
        state("loss", "low"),
        state("loss", 10**400),
        state("norms", []),
        state("norms", [0.1, None]),
        state("norms", {"a": 1}),
        state("curvatures", [1.0]),
        state("curvatures", 3.0),
        state("age", True),
        state("message", None),
        array("x", lambda x: x * np.nan),
        array("x", lambda x: x.astype(np.float32)),
        array("x", lambda x: x.astype(str)),
        array("x", lambda x: x[None]),
        array("gradient", lambda gradient: gradient + np.inf),
        array("gradient", lambda gradient: gradient[:-1]),
        array("changes", lambda changes: changes[1:]),
        array("changes", lambda changes: changes.ravel()),
        array("steps", lambda steps: steps[:, 1:]),
        shortened,
        rewritten('"version": 5', '"version": ' + "4" * 5000),
        rewritten('"state": {', '"state": ' + '{"a":' * 100_000),
        lambda text: "[" * 100_000,
        lambda text: "5",
        lambda text: text[:-9],
    ],
)
def test_wrong_values_in_checkpoints(change, digits, command, monkeypatch):
    monkeypatch.setattr("fastsoftmax.warmup", lambda dtypes, kernels: None)
    assert command(*TRAIN).code == 0
    arrays = archive_of(digits / "c.npz")
    header = str(arrays.pop("header"))
    try:
        text = change(header)
    except TypeError:
        change(header := json.loads(header), arrays)
        text = json.dumps(header)
    np.savez(digits / "c.npz", header=np.array(text), **arrays)
    before = [(digits / name).read_bytes() for name in ("c.npz", "resumed.npz")]
    assert refused(command(*TRAIN)._replace(out=""), "c.npz: ")
    assert [(digits / name).read_bytes() for name in ("c.npz", "resumed.npz")] == before


# ------------------------------------------------------------------------------------- .npy files


@pytest.mark.parametrize("name", ["X", "y"])
@pytest.mark.parametrize(
    "content",
    [*(content for content in MEMBERS.values() if content is not None)][:-1],
    ids=[*MEMBERS][1:-1],
)
def test_npy_files(content, name, digits, command):
    (digits / f"{name}.npy").write_bytes(content)
    assert refused(command("train", "X.npy"), f"{name}.npy: ")
