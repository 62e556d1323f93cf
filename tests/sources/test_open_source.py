"""Arguments of open_source, whatever the kind of file."""

import pytest

from fastsoftmax.sources import open_source


def test_unknown_paths_and_arguments(tmp_path):
    (tmp_path / "a.xls").write_text("")
    (tmp_path / "a.svm").write_text("1 1:2\n2 1:3\n")
    for name, options, message in (
        ("b.csv", {}, "no such file"),
        ("a.xls", {}, 'expected .parquet, .*got ".xls"'),
        ("a.svm", {"target": "y"}, "target, features, drop, weight and missing are for"),
        ("a.svm", {"chunk_rows": 0}, "chunk_rows: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(tmp_path / name, **options)
