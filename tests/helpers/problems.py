"""Random problems for tests."""

import numpy as np

SIZES = (1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 61, 63, 64, 65, 97, 127, 128, 129, 257)


def make_problem(n_rows, n_features, n_classes, dtype, seed=0, scale=2.0):
    """X, W, y, bias, sample_weight; logits of a few units, some weights zero."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows, n_features)).astype(dtype)
    W = (scale * rng.standard_normal((n_classes, n_features)) / np.sqrt(n_features)).astype(dtype)
    y = rng.integers(0, n_classes, n_rows)
    bias = rng.standard_normal(n_classes).astype(dtype)
    sample_weight = rng.uniform(0.1, 3.0, n_rows).astype(dtype)
    sample_weight[1::5] = 0
    return X, W, y, bias, sample_weight


def random_shapes(count, seed=0):
    """(N, D, K) odd, prime, 1, 2, powers of two and their neighbours."""
    rng = np.random.default_rng(seed)
    sizes = np.array(SIZES)
    shapes = [tuple(int(v) for v in rng.choice(sizes, 3)) for _ in range(count)]
    return [(n, d, max(k, 2)) for n, d, k in shapes] + [(1500, 3, 5), (700, 300, 2), (65, 5, 1025)]


def noisy_problem(dtype=np.float64, rows=3000, n_features=12, n_classes=5):
    """X of features of many scales that go together, and noisy labels y."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((rows, n_features)) @ rng.standard_normal((n_features, n_features))
    y = (mixed[:, :n_classes] + 3 * rng.gumbel(size=(rows, n_classes))).argmax(axis=1)
    X = mixed * np.geomspace(1e-2, 1e2, n_features) + rng.normal(size=n_features)
    return X.astype(dtype), y
