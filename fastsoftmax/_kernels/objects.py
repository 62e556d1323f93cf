"""Object code of kernels that comes with the package, for levels of x86-64 instead of one CPU.

Building a wheel compiles the common kernels for a level (`setup.py`, `fastsoftmax._warmup`). The
results are files of the disk cache, as Numba makes them when NUMBA_CPU_NAME and NUMBA_CPU_FEATURES
name the level. They serve on every CPU that has all features of the level and vectors no wider than
it knows, with the versions of Numba and of Python that compiled them. Elsewhere, and with
FASTSOFTMAX_OBJECTS=none in the environment, kernels are compiled on first use. The bits are the
same.
"""

import os
from pathlib import Path

from numba.core.registry import cpu_target

FOLDER = Path(__file__).parent / "object_code"

_V3 = (
    "64bit,avx,avx2,bmi,bmi2,cmov,crc32,cx16,cx8,f16c,fma,fxsr,lzcnt,mmx,movbe,popcnt,sahf,sse,"
    "sse2,sse3,sse4.1,sse4.2,ssse3,xsave"
)
LEVELS = {"x86-64-v4": _V3 + ",avx512bw,avx512cd,avx512dq,avx512f,avx512vl", "x86-64-v3": _V3}
# What decides how wide vectors are, see `vector.emit`: where it is, a lower level does not serve.
_WIDER = "avx512f"

Target = tuple[str, str, str]  # a triple, a CPU's name, and its features, as Numba writes them


def target_of(level: str) -> tuple[str, str]:
    """NUMBA_CPU_NAME and NUMBA_CPU_FEATURES for a level."""
    return level, ",".join(f"+{feature}" for feature in LEVELS[level].split(","))


def level_for(features: str) -> str | None:
    """The level whose object code a CPU runs that has such features, written "+avx,-avx512f"."""
    present = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    for level, listed in LEVELS.items():
        needed = set(listed.split(","))
        if needed <= present and (_WIDER in needed or _WIDER not in present):
            return level
    return None


def own_level() -> str | None:
    """The level whose object code Numba's target runs: this CPU, or that of NUMBA_CPU_FEATURES."""
    return level_for(cpu_target.target_context.codegen().magic_tuple()[2])


def stand_in(target: Target) -> Target | None:
    """The target for which the package may hold object code that serves for this one."""
    triple, _, features = target
    level = level_for(features)
    if level is None or os.environ.get("FASTSOFTMAX_OBJECTS") == "none":
        return None
    return (triple, *target_of(level))
