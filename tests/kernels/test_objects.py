"""Object code that comes with the package: for which CPUs it serves, and how it is found."""

import collections

import pytest

from fastsoftmax import _warmup
from fastsoftmax._kernels import objects
from fastsoftmax._kernels.cache import KernelCacheFiles

TRIPLE = "x86_64-unknown-linux-gnu"
V3, V4 = (objects.target_of(level)[1] for level in ("x86-64-v3", "x86-64-v4"))


@pytest.mark.parametrize(
    ("features", "level"),
    [
        (V3, "x86-64-v3"),
        (V3 + ",+sha,-avx512f,-avx512vl", "x86-64-v3"),
        (V4 + ",+avx512vnni", "x86-64-v4"),
        (V3.replace("+fma", "-fma"), None),
        (V3 + ",+avx512f", None),  # its vectors are wider than the level knows
        ("+sse,+sse2", None),
        ("", None),
        ("+neon", None),
    ],
)
def test_level_that_a_cpu_runs(features, level):
    assert objects.level_for(features) == level


@pytest.mark.parametrize("wanted", [None, "own", "none"])
def test_object_code_is_used_unless_it_is_not_wanted(wanted, monkeypatch):
    monkeypatch.delenv("FASTSOFTMAX_OBJECTS", raising=False)
    if wanted is not None:
        monkeypatch.setenv("FASTSOFTMAX_OBJECTS", wanted)
    found = objects.stand_in((TRIPLE, "znver3", V3))
    assert found == (None if wanted == "none" else (TRIPLE, "x86-64-v3", V3))


def test_files_of_a_level_stand_in_for_those_that_a_cpu_lacks(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTSOFTMAX_OBJECTS", raising=False)
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    shipped.mkdir()
    own.mkdir()
    monkeypatch.setattr(objects, "FOLDER", shipped)
    of_level, of_cpu = ((TRIPLE, name, V3) for name in ("x86-64-v3", "znver3"))
    KernelCacheFiles(str(shipped), "kernel", "1.0").save(("float32", of_level, "hash"), "shipped")
    files = KernelCacheFiles(str(own), "kernel", "1.0")
    assert files.load(("float32", of_cpu, "hash")) == "shipped"
    assert files.load(("float64", of_cpu, "hash")) is None
    assert files.load(("float32", of_cpu, "another hash")) is None
    assert files.load(("float32", (TRIPLE, "znver4", V4), "hash")) is None
    assert KernelCacheFiles(str(own), "kernel", "1.1").load(("float32", of_cpu, "hash")) is None
    files.save(("float32", of_cpu, "hash"), "compiled here")
    assert files.load(("float32", of_cpu, "hash")) == "compiled here"


@pytest.mark.parametrize("damage", [b"", b"not a kernel", None])
def test_damaged_object_code_is_compiled_instead(damage, tmp_path, monkeypatch):
    monkeypatch.delenv("FASTSOFTMAX_OBJECTS", raising=False)
    monkeypatch.setattr(objects, "FOLDER", tmp_path)
    files = KernelCacheFiles(str(tmp_path), "kernel", "1.0")
    files.save(("float32", (TRIPLE, "x86-64-v3", V3), "hash"), "code")
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
    assert files.load(("float32", (TRIPLE, "znver3", V3), "hash")) is None


@pytest.mark.slow
def test_kernels_of_another_level_are_compiled_for_the_signatures_of_this_one(tmp_path):
    own = objects.own_level()
    if own is None:
        pytest.skip("this CPU has no level of x86-64 that object code is made for")
    for level in (own, *(objects.LEVELS.keys() - {own})):
        cpu, features = objects.target_of(level)
        target = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
        function = "prepare_and_list" if level == own else "compile_listed"
        arguments = [str(tmp_path), "signatures", "losses:float32"]
        process = _warmup._start(
            function, arguments, **_warmup.PLAIN, NUMBA_CACHE_DIR=str(tmp_path), **target
        )
        assert process.wait() == 0
    kernels = collections.Counter(path.name.split(".")[1] for path in tmp_path.rglob("*.nbc"))
    assert kernels and all(n % len(objects.LEVELS) == 0 for n in kernels.values()), kernels
