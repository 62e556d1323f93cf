"""The data of probe.py: features like those of an image network, written chunk by chunk."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np

CHUNK_ROWS = 20_000
WRONG = 0.05  # of all labels, in the test set too


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What data are made of."""

    rows: int
    features: int
    classes: int
    test_rows: int
    seed: int

    @property
    def shape(self) -> str:
        """As it is written in a heading."""
        return f"({self.rows:,}, {self.features:,}, {self.classes:,})"


def make(recipe: Recipe, folder: Path) -> None:
    """Write X.npy, y.npy and those of the test set, unless the folder holds them already."""
    recipe_file, text = folder / "recipe.json", json.dumps(dataclasses.asdict(recipe))
    if recipe_file.exists() and recipe_file.read_text() == text:
        return
    recipe_file.unlink(missing_ok=True)
    rng, D, K = np.random.default_rng(recipe.seed), recipe.features, recipe.classes
    # Factors of which the first ones vary most, and tell most of the classes; within a class they
    # have deviation 1 here, so that centres are as far apart as keeps classes from separating.
    falling = 1 / np.arange(1, D + 1)
    centres = rng.standard_normal((K, D)) * np.sqrt(3 * math.log(K) * falling / falling.sum())
    rotation = np.linalg.qr(rng.standard_normal((D, D)))[0]
    mixing = np.sqrt(D * falling / falling.sum())[:, None] * rotation
    mixing *= rng.lognormal(0, 0.5, D)
    arrays = [a.astype(np.float32) for a in (centres, mixing, rng.standard_normal(D) / 2)]
    for part, (prefix, n_rows) in enumerate((("", recipe.rows), ("test_", recipe.test_rows))):
        path, dtype, shape = folder / f"{prefix}X.npy", np.float16, (n_rows, D)
        X = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        y = np.empty(n_rows, np.int64)
        for start in range(0, n_rows, CHUNK_ROWS):
            rows = slice(start, min(start + CHUNK_ROWS, n_rows))
            rng = np.random.default_rng((recipe.seed, part, start))
            X[rows], y[rows] = make_rows(rows.stop - start, *arrays, rng)
        X.flush()
        np.save(folder / f"{prefix}y.npy", y)
    recipe_file.write_text(text)


def make_rows(
    n: int, centres: np.ndarray, mixing: np.ndarray, offset: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of normal noise around the centres of their classes, and noisy labels."""
    y = rng.integers(0, len(centres), n)
    factors = centres[y]
    factors += rng.standard_normal(factors.shape, dtype=np.float32)
    return factors @ mixing + offset, np.where(rng.random(n) < WRONG, rng.permutation(y), y)
