"""What the benchmarks themselves promise: the list of points, the pictures, the grid's table."""

import json
from pathlib import Path

import grid
import grid_points
import pytest

RESULTS = Path(__file__).parent / "results"


def test_points_are_fixed_varied_and_affordable():
    points = grid_points.points()
    assert len(set(points)) == grid_points.N_POINTS
    assert points[:12] == grid_points.points(12)
    for shape, dtype in points:
        assert grid_points.affordable(shape, dtype)
        for size, (low, high) in zip(shape, grid_points.RANGES, strict=True):
            assert low <= size <= high
    assert {dtype for _, dtype in points} == {"float32", "float64"}
    primes = sum(map(grid_points._is_prime, (n for shape, _ in points for n in shape)))
    assert primes >= 20


def test_the_worst_point_comes_first_and_losses_are_counted():
    rows = [
        {"shape": (n, 2, 3), "dtype": "float32", "turns": 3, "absent": {}, "best": "JAX",
         "ms": {"fastsoftmax": 1.0, "JAX": ratio}, "ratio": ratio}
        for n, ratio in ((100, 2.0), (200, 0.5), (300, 1.2))
    ]  # fmt: skip
    on = {"cpu": "a CPU", "threads": 2, "date": "today", "versions": {}, "blas": "none"}
    text = grid.markdown({"machine": on, "rows": rows})
    assert text.index("| 200, 2, 3") < text.index("| 300, 2, 3") < text.index("| 100, 2, 3")
    assert "at 1 of them, less than 1.3 times at 2" in text


@pytest.mark.filterwarnings("default")
def test_a_picture_is_drawn_again_from_the_committed_figures(tmp_path):
    pytest.importorskip("matplotlib")
    import pictures

    report = json.loads((RESULTS / "linear.json").read_text())
    (first,) = pictures.report(report, tmp_path)
    assert first.name == "linear.svg"
    drawn = first.read_bytes()
    pictures.report(report, tmp_path)
    assert first.read_bytes() == drawn
    assert all(name in pictures.caption(report) for name in ("AMD EPYC", "GB/s", "numpy 2"))
