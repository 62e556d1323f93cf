"""Random calls of every kernel, each array at a page that may not be touched; see guard_calls.

Where the host has AVX-512, the three targets are AVX-512, AVX2 and SSE2. Where AVX2 is all it has,
there are two, each of which makes half as many calls again.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import guard_pages
import pytest

from fastsoftmax._kernels.vector import emit

pytestmark = pytest.mark.skipif(
    guard_pages.compiler() is None or not sys.platform.startswith("linux"),
    reason="no C compiler here (or no Linux): the memory handler cannot be built",
)
PROGRAM = Path(__file__).parent / "guard_calls.py"


@pytest.mark.slow
@pytest.mark.skipif("x86_64" not in emit.TRIPLE, reason="the targets are x86 ones")
@pytest.mark.parametrize("target", ["host", "AVX2", "SSE2"])
def test_no_call_touches_a_guard_page(target):
    if target == "AVX2" and not {"avx2", "fma"} <= emit.FEATURES:
        pytest.skip("this CPU has no AVX2")
    only_avx2 = "avx2" in emit.FEATURES and emit.VECTOR_BYTES == 32
    if target == "AVX2" and only_avx2:
        pytest.skip("AVX2 is what this CPU has: it is the target host")
    calls = 1800 if only_avx2 else 1200
    # Each type that is converted would be another kernel to compile.
    options = ["--calls", str(calls), "--target", target, "--few-types"]
    command = [sys.executable, str(PROGRAM), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    count = re.fullmatch(
        f"{target}: {calls} calls, 0 faults, 0 wrong; (.*) on threads", result.stdout.strip()
    )
    assert count and int(count[1]) > 300


FAULTS = {
    "read behind the end": ("AT_END", "ctypes.string_at(place + 40, 1)", -11),
    "read before the beginning": ("AT_BEGIN", "ctypes.string_at(place - 1, 1)", -11),
    "written behind the end": ("AT_BEGIN", "ctypes.memset(place + 40, 0, 1)", -6),
    "written before the beginning": ("AT_END", "ctypes.memset(place - 1, 0, 1)", -6),
    "nothing": ("AT_END", "ctypes.memset(place, 0, 40)", 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_guard_sees(fault, tmp_path):
    mode, statement, code = FAULTS[fault]
    library = guard_pages.build(tmp_path)
    program = f"""
import ctypes, threading, guard_pages, numpy as np
guard_pages.install({str(library)!r})
guard_pages.place(guard_pages.{mode})
def work():
    x = np.empty(10, np.float32)
    assert np.isnan(x).all() and not np.zeros(3).any()
    place = x.ctypes.data
    {statement}
    del x
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(guard_pages.__file__).parent)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=False
    )
    assert result.returncode == code, result.stderr
