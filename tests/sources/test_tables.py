"""Tables as people have them: text, categories, truth values and missing numbers as features."""

import contextlib
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder
from source_files import collect, open_and_stream

from fastsoftmax.linear_model import SoftmaxRegression
from fastsoftmax.sources import TableColumns, open_source

NUMBERS, TEXTS = ["age", "fare"], ["city", "fit"]
SUFFIXES = ["csv", "tsv", "parquet"]


def table(n_rows=400, n_cities=12, seed=0):
    """Rows with text in which there are commas and quotes, truth values and missing numbers."""
    rng = np.random.default_rng(seed)
    cities = np.array([f'"{i}", by the sea' for i in range(n_cities)], object)
    frame = pd.DataFrame({"age": rng.integers(1, 90, n_rows) / 2, "fare": rng.random(n_rows)})
    frame.loc[rng.random(n_rows) < 0.1, "age"] = np.nan
    frame["city"] = cities[rng.integers(0, n_cities, n_rows)]
    frame["fit"] = rng.random(n_rows) < 0.5
    frame["y"] = np.where(frame["fit"] ^ (rng.random(n_rows) < 0.2), "yes", "no")
    return frame


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False, row_group_size=90)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def expected(frame, numbers=NUMBERS, texts=TEXTS):
    """What scikit-learn makes of a table, in the order of its columns, and the names."""
    parts = [
        (name, SimpleImputer(add_indicator=True), [name])
        if name in numbers
        else (name, OneHotEncoder(sparse_output=False), [name])
        for name in frame.columns
        if name in [*numbers, *texts]
    ]
    transformer = ColumnTransformer(parts, verbose_feature_names_out=False)
    return transformer.fit_transform(frame), transformer.get_feature_names_out().tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("n_cities", [5, 150])
def test_features_are_those_of_scikit_learn(suffix, n_cities, tmp_path):
    frame = table(n_cities=n_cities)
    frame.loc[[3, 50], "city"] = np.nan
    path = write(frame, tmp_path / f"a.{suffix}")
    want, names = expected(pd.read_csv(write(frame, tmp_path / "as_read.csv")))
    for chunk_rows in (None, 64):
        source = open_source(path, "y", missing="mean", chunk_rows=chunk_rows)
        assert source.feature_names == names
        X, y = source.load()
        assert sparse.issparse(X) == (n_cities == 150)
        np.testing.assert_allclose(X.toarray() if sparse.issparse(X) else X, want, rtol=1e-12)
        assert y.tolist() == frame["y"].tolist()
    assert names.count("missingindicator_age") == names.count("city_nan") == 1
    assert source.columns.is_sparse == (n_cities == 150)
    zero = open_source(path, "y", missing="zero")
    column = collect(zero)[0][:, names.index("age")]
    np.testing.assert_array_equal(column, frame["age"].fillna(0))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("n_cities", [5, 150])
def test_a_stream_is_the_same_as_memory(suffix, n_cities, tmp_path):
    path = write(table(3000, n_cities), tmp_path / f"a.{suffix}")
    source = open_source(path, "y", missing="mean", learn=False, chunk_rows=256)
    training, test = source.split(0.3)
    test.use_columns(training.learn_columns())
    streamed = SoftmaxRegression(1e-3).fit(training)
    X, y = training.load()
    in_memory = SoftmaxRegression(1e-3).fit(X, y)
    np.testing.assert_array_equal(streamed.coef_, in_memory.coef_)
    np.testing.assert_array_equal(streamed.intercept_, in_memory.intercept_)
    assert 0.7 < in_memory.score(*test.load())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_only_training_rows_are_learned_from(suffix, tmp_path):
    frame = table()
    frame["city"] = [f"c{i // 4}" for i in range(len(frame))]
    frame.loc[300:, "age"] += 1000
    path = write(frame, tmp_path / f"a.{suffix}")
    source = open_source(path, "y", missing="mean", learn=False)
    chosen = source.choose(np.arange(0, 300))
    columns = chosen.learn_columns()
    values = {column.name: column for column in columns.columns}
    assert values["city"].values == tuple(sorted({f"c{i // 4}" for i in range(300)}))
    assert values["age"].fill == pytest.approx(frame["age"][:300].mean())
    assert chosen.labels().tolist() == frame["y"][:300].tolist()
    source.use_columns(columns)
    X, _ = source.load()
    assert X[:, columns.feature_names.index("city_c0")].sum() == 4
    assert source.unseen["city"].n_rows == 100
    assert source.unseen["city"].examples == ('"c75"', '"c76"', '"c77"')
    source.load()
    assert source.unseen["city"].n_rows == 100  # of one pass, not of all
    chosen.load()
    assert chosen.unseen == {}


def test_values_match_in_any_format_and_spelling(tmp_path):
    """The number 1 is the text 1, and a truth value is one however it is spelled: as for labels."""
    rows = {"a": ["1", "2", "x"] * 4, "b": [True, False, True] * 4, "y": [0, 1] * 6}
    train = write(pd.DataFrame(rows), tmp_path / "train.csv")
    known = open_source(train, "y").columns
    assert known.feature_names == ["a_1", "a_2", "a_x", "b_False", "b_True"]
    want = [[1, 0, 0, 0, 1], [0, 1, 0, 1, 0]]
    for name, a, b in (
        ("b.csv", ["1", "2"], ["TRUE", "false"]),
        ("c.csv", ["1.0", "2.0"], ["true", "False"]),
        ("d.parquet", [1, 2], [True, False]),
        ("e.parquet", [1.0, 2.0], ["True", "False"]),
        ("f.parquet", pd.Categorical(["1", "2"]), pd.Categorical([True, False])),
    ):
        path = write(pd.DataFrame({"b": b, "more": [7, 8], "a": a}), tmp_path / name)
        source = open_source(path, labelled=False, columns=known)
        (X,) = source.features()
        assert (X.tolist(), source.unseen) == (want, {})
    path = write(pd.DataFrame({"b": ["maybe", None], "a": ["3", "1"]}), tmp_path / "g.parquet")
    source = open_source(path, labelled=False, columns=known)
    (X,) = source.features()
    assert X.tolist() == [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert source.unseen["b"] == (2, ("a missing one", '"maybe"'))
    assert source.unseen["a"] == (1, ('"3"',))


@pytest.mark.parametrize("chunk_rows", [None, 2])
def test_a_column_is_of_one_kind_in_all_chunks(chunk_rows, tmp_path):
    (tmp_path / "a.csv").write_text("a,y\n01,0\n2.0,1\n3,0\n4,0\nx,1\n,0\n")
    source = open_source(tmp_path / "a.csv", "y", chunk_rows=chunk_rows)
    assert source.feature_names == ["a_01", "a_2.0", "a_3", "a_4", "a_x", "a_nan"]
    np.testing.assert_array_equal(collect(source)[0], np.eye(6))
    (tmp_path / "a.csv").write_text("a,y\n1,0\n0,1\nTrue,0\nFalse,1\n1,0\n0,1\n")
    source = open_source(tmp_path / "a.csv", "y", chunk_rows=chunk_rows)
    assert source.feature_names == ["a_0", "a_1", "a_False", "a_True"]


@pytest.mark.parametrize("first", ["x", "1"])
def test_texts_that_pandas_would_make_numbers_of(first, tmp_path):
    """Numbers too large for pandas are text to it in one place, and numbers in another."""
    large = "9" * 25
    values = [first, f"0{large}", large, f"+{large}", f"0{large}", large, "TRUE", "True", "01", "1"]
    (tmp_path / "a.csv").write_text(
        "a,y\n" + "".join(f"{v},{i % 2}\n" for i, v in enumerate(values))
    )
    want = [v.capitalize() if v.lower() == "true" else v for v in values]
    for chunk_rows in (None, 2, 3):
        source = open_source(tmp_path / "a.csv", "y", chunk_rows=chunk_rows)
        assert source.feature_names == [f"a_{value}" for value in sorted(set(want))]
        X = collect(source)[0]
        assert [source.feature_names[i] for i in X.argmax(axis=1)] == [f"a_{v}" for v in want]


CATEGORIES = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "dictionary": pa.dictionary(pa.uint8(), pa.string()),
    "large dictionary": pa.dictionary(pa.int64(), pa.large_string()),
}


@pytest.mark.parametrize("kind", CATEGORIES)
def test_text_stored_in_several_ways(kind, tmp_path):
    texts = pa.array(["u", None, "v", "u", "w", "v"]).cast(CATEGORIES[kind])
    for i, rows in enumerate((slice(0, 4), slice(4, 6))):
        columns = pa.table({"a": texts[rows], "y": [0, 1, 0, 1, 0, 1][rows]})
        pq.write_table(columns, tmp_path / f"{i}.parquet", row_group_size=3)
    source = open_source(tmp_path, "y")
    assert source.feature_names == ["a_u", "a_v", "a_w", "a_nan"]
    np.testing.assert_array_equal(collect(source)[0], np.eye(4)[[0, 3, 1, 0, 2, 1]])
    pq.write_table(pa.table({"a": ["u", "x"], "y": [0, 1]}), tmp_path / "2.parquet")
    assert open_source(tmp_path, "y").n_features == 5


def test_decimals_are_numbers(tmp_path):
    decimals = pa.array([Decimal(1), Decimal("2.5"), None], pa.decimal128(9, 2))
    pq.write_table(pa.table({"d": decimals, "y": [0, 1, 0]}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", "y", missing="zero")
    assert source.feature_names == ["d", "missingindicator_d"]
    assert collect(source)[0].tolist() == [[1, 0], [2.5, 0], [0, 1]]


@pytest.mark.parametrize("kind", ["Int8", "Int64", "UInt16"])
@pytest.mark.parametrize("missing", ["mean", "zero"])
def test_means_of_integers_are_no_integers(kind, missing, tmp_path):
    frame = pd.DataFrame({"n": pd.array([1, 2, None, 1], kind), "y": [0, 1, 0, 1]})
    path = write(frame, tmp_path / "a.parquet")
    fill = 4 / 3 if missing == "mean" else 0
    expected = [[1, 0], [2, 0], [fill, 1], [1, 0]]
    source = open_source(path, "y", missing=missing)
    np.testing.assert_allclose(source.load()[0], expected, rtol=1e-6)
    other = open_source(path, "y", learn=False)
    other.use_columns(source.columns)
    np.testing.assert_allclose(other.load()[0], expected, rtol=1e-6)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_weights(suffix, tmp_path):
    frame = table(900)
    frame["w"] = np.arange(900) % 3
    path = write(frame, tmp_path / f"a.{suffix}")
    source = open_source(path, "y", missing="mean", weight="w", chunk_rows=128)
    assert "w" not in source.feature_names
    X, y, weight = source.load()
    assert weight.tolist() == frame["w"].tolist()
    streamed = SoftmaxRegression(1e-3).fit(source)
    in_memory = SoftmaxRegression(1e-3).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(streamed.coef_, in_memory.coef_)
    unweighted = open_source(path, "y", missing="mean", drop=["w"])
    unweighted.load()
    assert unweighted.digest[1] != source.digest[1]
    for value, message in ((-1, "expected weights >= 0, got -1"), (np.nan, "missing|weights")):
        frame["w"] = frame["w"].astype(float)
        frame.loc[500, "w"] = value
        write(frame, path)
        with pytest.raises(ValueError, match=rf"a.{suffix}: .*{message}"):
            open_and_stream(path, "y", missing="mean", weight="w")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"d": ["2024-01-31", "2023-12-01 10:00:00"] * 2}, {}, 'column "d": dates'),
        (
            {"d, 1": ["31.1.2024", "1/2/24"] * 2, "e": ["12:30", "1:00:05"] * 2},
            {},
            """columns "d, 1", "e": dates, .*leave out \\(--drop '"d, 1",e'; in""",
        ),
        (
            {"d": pd.date_range("2024-01-01", periods=4).strftime("%Y-%m-%d")},
            {"max_categories": 2},
            'column "d": dates',
        ),
        ({"i": list("abcd")}, {"max_categories": 3}, 'column "i": more than 3 values, such as "a"'),
        ({"n": [1.0, None, 2.0, 3.0]}, {}, 'column "n": missing .*--missing mean'),
        ({}, {"features": ["vv"]}, r'missing feature columns: vv \(did you mean "v"\?\)'),
        ({}, {"drop": ["V"]}, r'no column "V" \(did you mean "v"\?\); there are v, y'),
        ({}, {"weight": "w"}, 'no column "w"'),
        ({}, {"weight": "y"}, 'column "y": expected labels or weights, not both'),
        ({}, {"weight": "v", "features": ["v"]}, "expected weights or a feature, not both"),
        ({}, {"drop": ["v"]}, "missing feature columns: all of them"),
        ({}, {"missing": "median"}, 'missing: expected "error", "mean" or "zero"'),
        ({}, {"max_categories": 0}, "max_categories: expected"),
        ({}, {"columns": TableColumns(()), "drop": ["v"]}, "columns: expected neither features"),
    ],
)
def test_refused(suffix, columns, options, message, tmp_path):
    frame = pd.DataFrame({"v": [1.0, 2.0, 3.0, 4.0], **columns, "y": [0, 1, 0, 1]})
    path = write(frame, tmp_path / f"a.{suffix}")
    with pytest.raises(ValueError, match=message):
        open_and_stream(path, "y", **options)


DATES = (
    *("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%y", "%Y/%m/%d %I:%M:%S %p", "%Y-%m-%dT%H:%M:%S.%fZ"),
    *("%d-%b-%Y", "%b %d, %Y", "%A %d %B %Y", "%a, %d %b %y", "%d/%b/%Y:%H:%M:%S +0000"),
    *("%d%b%Y:%H:%M:%S", "%H:%M", "%H:%M:%S.%f", "%I:%M %p", "%H:%M+02:00"),
)
NO_DATES = ["1.2.3", "10.0.0.1", "12-34-5678", "3:2", "25:00", "555-1234", "May", "May 2024",
            "Mary 1, 2010", "Mon", "Q1 2024", "13/13/13", "1-2", "Sunny 5 Inn 20"]  # fmt: skip


@pytest.mark.parametrize("form", DATES)
def test_dates_in_any_form_are_refused(form, tmp_path):
    days = pd.date_range("2023-11-05 01:23:45.678", periods=40, freq="151h").strftime(form)
    others = ["never" if i % 20 == 7 else day for i, day in enumerate(days)]
    for values in (days, others):
        path = write(pd.DataFrame({"d": values, "y": [0, 1] * 20}), tmp_path / "a.csv")
        with pytest.raises(ValueError, match='column "d": dates, .*--drop d'):
            open_source(path, "y")


@pytest.mark.parametrize("text", NO_DATES)
def test_what_only_looks_like_a_date_is_text(text, tmp_path):
    path = write(pd.DataFrame({"d": [text, "other"], "y": [0, 1]}), tmp_path / "a.csv")
    assert f"d_{text}" in open_source(path, "y").feature_names


def test_nan_is_named_where_features_are_sparse(tmp_path):
    frame = pd.DataFrame({"c": [str(i) for i in range(90)], "v": np.arange(90.0), "y": [0, 1] * 45})
    frame.loc[77, "v"] = np.nan
    table = pa.table({name: frame[name].to_numpy() for name in frame})  # NaN, and not null
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match='column "v": NaN or inf.* in row 77 .*--missing mean'):
        open_and_stream(tmp_path / "a.parquet", "y")


def test_dates_and_others_in_parquet(tmp_path):
    for values, message in (
        (pd.date_range("2024", periods=2), r'column "d": dates, .*--drop d'),
        (pd.to_timedelta([1, 2], "h"), 'column "d": dates'),
        ([b"1", b"2"], "expected numbers, text or truth values, got binary: leave out"),
        (pa.array([{"a": 1}, {"a": 2}]), "got struct"),
        (pa.nulls(2), "missing values"),
    ):
        pq.write_table(pa.table({"d": values, "y": [0, 1]}), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=message):
            open_and_stream(tmp_path / "a.parquet", "y")
    with pytest.raises(ValueError, match="no number in the training rows, so no mean: leave out"):
        open_source(tmp_path / "a.parquet", "y", missing="mean")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_that_do_not_fit_what_was_learned(suffix, tmp_path):
    known = open_source(write(table(), tmp_path / f"a.{suffix}"), "y", missing="mean").columns
    frame = table(50, seed=1)
    # What was whole in training has a mean as well, but no feature that says where.
    path = write(frame.assign(fare=np.nan), tmp_path / f"b.{suffix}")
    source = open_source(path, "y", columns=known)
    mean = {column.name: column.fill for column in known.columns}["fare"]
    assert set(collect(source)[0][:, known.feature_names.index("fare")]) == {mean}
    for change, message in (
        ({"fare": ["1", "much"] * 25}, 'column "fare": expected numbers'),
        ({"age": ["x"] * 50}, 'column "age": expected numbers'),
        ({"fare": [np.inf] * 50}, "infinite"),
    ):
        path = write(frame.assign(**change), tmp_path / f"c.{suffix}")
        with pytest.raises(ValueError, match=message):
            open_and_stream(path, "y", columns=known)
    path = write(frame.drop(columns="city"), tmp_path / f"d.{suffix}")
    with pytest.raises(ValueError, match="missing feature columns: city; there are age, fare"):
        open_source(path, "y", columns=known)


@pytest.mark.parametrize("n_cities", [12, 300])  # dense and CSR
def test_a_chunk_stays_until_the_next_but_one(n_cities, tmp_path):
    path = write(table(500, n_cities), tmp_path / "a.parquet")
    source = open_source(path, "y", missing="mean", chunk_rows=64)
    assert source.columns.is_sparse == (n_cities == 300)
    with contextlib.closing(source()) as chunks:
        first = next(chunks)[0]
        before = first.copy()
        next(chunks)
        assert abs(first - before).max() == 0


def test_columns_as_text(tmp_path):
    known = open_source(write(table(), tmp_path / "a.csv"), "y", missing="mean").columns
    text = known.to_json()
    assert TableColumns.from_json(text).columns == known.columns
    for damaged in (
        text[:-1], "5", "[5]", "[{}]", "[[]]", '{"a": 1}', "[" * 9999,
        text.replace('"category"', '"other"'), text.replace('"width": 1', '"width": true'),
        text.replace('"width": 1', '"width": -1'), text.replace("true", "1"),
        text.replace('"name": "age"', '"name": 1'), text.replace('"fill": 2', '"fill": NaN, "": 2'),
        text.replace('"values": []', '"values": [1]'), text.replace('"values": []', '"values": 1'),
        text.replace('["False", "True"]', '["True", "True"]'),
    ):  # fmt: skip
        with pytest.raises(ValueError):  # noqa: PT011
            TableColumns.from_json(damaged)
