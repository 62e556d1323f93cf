"""Arguments of open_source, whatever the kind of file."""

import os
from pathlib import Path

import pytest

from fastsoftmax.sources import open_source


def test_unknown_paths_and_arguments(tmp_path):
    (tmp_path / "a.xls").write_text("")
    (tmp_path / "a.svm").write_text("1 1:2\n2 1:3\n")
    (tmp_path / "semicolons.csv").write_text("a;b;y\n1,5;2,5;0\n2,5;3,5;1\n")
    (tmp_path / "tabs.csv").write_text("a\ty\n1\t0\n2\t1\n")
    (tmp_path / "commas.tsv").write_text("a,y\n1,0\n2,1\n")
    for name in ("folder", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "b.csv").write_text("")
    for name, options, message in (
        ("b.csv", {}, "no such file"),
        ("a.xls", {}, 'expected .parquet, .*got ".xls"'),
        ("semicolons.csv", {"target": "y"}, "with semicolons: write it with commas, and numbers"),
        ("tabs.csv", {"target": "y"}, r"by commas, got a header with tabs: .* \(--format tsv\)"),
        ("commas.tsv", {"target": "y"}, r"by tabs, got a header with commas: .*--format csv"),
        ("folder", {"target": "y"}, r'found b.csv: give the format "parquet" \(--format'),
        ("empty", {"target": "y"}, "expected .parquet files, or X.npy or X_.*, found none"),
        ("a.svm", {"target": "y"}, "target, features, drop, weight and missing are for"),
        ("a.svm", {"chunk_rows": 0}, "chunk_rows: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(tmp_path / name, **options)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.svm", "a.npz", "a"])
@pytest.mark.parametrize("format", [None, "csv"])
def test_a_pipe_cannot_be_read_twice(name, format, tmp_path):
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, Path(os.devnull)):
        with pytest.raises(ValueError, match="expected a regular file, .*: write it to a file"):
            open_source(path, "y", format=format)
