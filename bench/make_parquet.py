"""Write a Parquet file larger than memory's share: normal features, labels of a linear model.

As pyarrow writes files if not told otherwise: compressed by Snappy, dictionaries tried.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def make(
    path: Path, n_rows: int, n_features: int, n_classes: int, group_rows: int, plain: bool = False
) -> None:
    """Write the file row group by row group, the same for the same sizes."""
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False} if plain else {}
    names = [f"x{i:02d}" for i in range(n_features)]
    schema = pa.schema([*((name, pa.float32()) for name in names), ("label", pa.int8())])
    W = np.random.default_rng(0).standard_normal((n_classes, n_features), dtype=np.float32) / 5
    with pq.ParquetWriter(path, schema, **options) as writer:
        for group, start in enumerate(range(0, n_rows, group_rows)):
            rng = np.random.default_rng((1, group))
            shape = (n_features, min(group_rows, n_rows - start))
            X = rng.standard_normal(shape, dtype=np.float32)
            noise = rng.gumbel(size=(n_classes, shape[1])).astype(np.float32)
            y = (W @ X + noise).argmax(axis=0).astype(np.int8)
            columns = [*(pa.array(column) for column in X), pa.array(y)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=group_rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--group-rows", type=int, default=1_048_576)
    parser.add_argument("--plain", action="store_true", help="no compression, no dictionaries")
    a = parser.parse_args()
    make(a.path, a.rows, a.features, a.classes, a.group_rows, a.plain)


if __name__ == "__main__":
    main()
