"""Tables as people have them on the command line, beside scikit-learn's pipeline."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fastsoftmax.cli._model_files import load_model
from fastsoftmax.cli._tables import Spreads

L2 = 1e-3


def titanic(n_rows, rng):
    """Names with commas and quotes, a number of each row, missing ages, hours of boarding."""
    frame = pd.DataFrame({"PassengerId": np.arange(n_rows)})
    frame["Pclass"] = rng.integers(1, 4, n_rows)
    frame["Name"] = [f'Doe, Mr. "{i:x}"' for i in rng.permutation(n_rows)]
    frame["Sex"] = rng.choice(["male", "female"], n_rows)
    frame["Age"] = missing(rng.gamma(6, 5, n_rows).round(1), 0.2, rng)
    frame["Fare"] = (rng.lognormal(3, 1, n_rows) / frame["Pclass"]).round(2)
    frame["Embarked"] = missing(rng.choice(np.array(["S", "C", "Q"], object), n_rows), 0.02, rng)
    frame["Alone"] = rng.random(n_rows) < 0.6
    frame["Boarded"] = pd.date_range("1912-04-01", periods=n_rows, freq="h").astype(str)
    z = 2.5 * (frame["Sex"] == "female") - 0.8 * frame["Pclass"] + 0.8 * frame["Age"].isna()
    frame["Survived"] = (z + rng.logistic(size=n_rows) / 2 > -0.5).astype(int)
    return frame, "Survived", "PassengerId,Name,Boarded"


def adult(n_rows, rng):
    """Many countries, two of which are rare; three classes; weights that are no feature."""
    frame = pd.DataFrame({"age": rng.integers(17, 90, n_rows)})
    countries = np.array([f"Land {i}, {'east' if i % 2 else 'west'}" for i in range(90)])
    chosen = rng.geometric(0.04, n_rows) % 90
    frame["native-country"] = countries[chosen]
    frame["fnlwgt"] = rng.integers(1, 1000, n_rows)
    frame["education"] = rng.choice(["HS-grad", "Bachelors", "1st-4th", "12th"], n_rows)
    frame["hours"] = missing(rng.normal(40, 9, n_rows).round(), 0.05, rng)
    z = (chosen % 7) / 2 + (frame["education"] == "Bachelors") * 2 + frame["age"] / 60
    frame["income"] = np.digitize(z + rng.logistic(size=n_rows) / 2, [2.0, 3.5])
    frame["income"] = np.array(["<=50K", ">50K", ">100K"])[frame["income"]]
    return frame, "income", "fnlwgt"


def telecom(n_rows, rng):
    """Truth values, plans, phone numbers as texts, and columns that are of no use."""
    frame = pd.DataFrame({"phone": [f"+47 {i:08d}" for i in rng.integers(0, 10**8, n_rows)]})
    frame["intl plan"] = rng.random(n_rows) < 0.3
    frame["plan"] = rng.choice(["A", 'B "plus"', "C, old"], n_rows)
    frame["since"] = [f"{d}.{m}.20{y}" for d, m, y in rng.integers(1, [29, 13, 24], (n_rows, 3))]
    frame["minutes"] = rng.gamma(5, 40, n_rows).round(1)
    frame["calls"] = rng.integers(0, 9, n_rows)
    z = frame["intl plan"] * 1.5 + (frame["plan"] == "A") + frame["minutes"] / 200
    frame["churn"] = z + rng.logistic(size=n_rows) / 3 > 2
    return frame, "churn", "phone,since"


def missing(values, part, rng):
    values = values.astype(object if values.dtype == object else float)
    values[rng.random(len(values)) < part] = np.nan
    return values


TABLES = {"titanic": titanic, "adult": adult, "telecom": telecom}


def make(name, suffix):
    """Write a training and a test file, of whose rows some have values not seen in training."""
    rng = np.random.default_rng(0)
    (frame, target, drop), (test, _, _) = TABLES[name](3000, rng), TABLES[name](1500, rng)
    texts = [
        c for c in frame if frame[c].dtype.kind in "OU" and c not in (target, *drop.split(","))
    ]
    for column in texts:
        test.loc[rng.random(len(test)) < 0.03, column] = f"another {column}"
    for file, rows in (("train", frame), ("test", test[test.columns[::-1]])):
        path = f"{file}.{suffix}"
        if suffix == "parquet":
            rows.to_parquet(path)
        else:
            rows.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    return frame, test, target, drop, texts


def pipeline(frame, target, drop, texts):
    """scikit-learn's pipeline at the same strength, fitted to these rows."""
    X = frame.drop(columns=[target, *drop.split(",")])
    texts = [*texts, *X.select_dtypes(bool)]
    numbers = [name for name in X if name not in texts]
    transformer = ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
            ("numbers", SimpleImputer(add_indicator=True), numbers),
        ]
    )
    strength = (1 if frame[target].nunique() == 2 else 2) * L2 * len(frame)
    classifier = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-6)
    return make_pipeline(transformer, classifier).fit(X, frame[target])


def measured(output, name):
    return float(output.split(name)[1].split("│")[1])


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["memory", "stream"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("name", TABLES)
def test_the_same_as_scikit_learn(name, suffix, stream, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    frame, test, target, drop, texts = make(name, suffix)
    options = ["--target", target, "--drop", drop, "--missing", "mean", "--l2", L2, *stream]
    result = command("train", f"train.{suffix}", *options, "--tol", "1e-6", "--output", "m.npz")
    assert result.code == 0, result.err
    if stream:
        held = np.random.PCG64(0).random_raw(len(frame)) < np.uint64(0.2 * 2**64)
        rows, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    else:
        numbers = np.arange(len(frame))
        rows, held_out = train_test_split(
            numbers, test_size=0.2, random_state=0, stratify=frame[target]
        )
    reference = pipeline(frame.iloc[np.sort(rows)], target, drop, texts)
    for data, tested, output in (
        ("train", frame.iloc[held_out], result.out.split("held-out rows")[1]),
        ("test", test, None),
    ):
        X, y = tested.drop(columns=[target]), tested[target]
        accuracy, loss = reference.score(X, y), log_loss(y, reference.predict_proba(X))
        if output is None:
            result = command("evaluate", "m.npz", f"{data}.{suffix}")
            assert result.code == 0
            for column in texts:
                count = (~tested[column].isin(frame[column].iloc[rows])).sum()
                assert f'column "{column}": {count} rows have values that' in result.err
            assert measured(result.out, "accuracy") == pytest.approx(accuracy, abs=0.005)
            assert measured(result.out, "log-loss") == pytest.approx(loss, abs=0.005)
            command("predict", "m.npz", f"{data}.{suffix}", "--output", "p.csv")
            predicted = pd.read_csv("p.csv")[target]
            assert (predicted.to_numpy() == y.to_numpy()).mean() == pytest.approx(
                accuracy, abs=0.005
            )
        else:
            assert float(output.split("│")[1]) == pytest.approx(accuracy, abs=0.005)
    assert accuracy > 0.6


@pytest.fixture
def passengers(tmp_path, monkeypatch):
    """The working directory, with a table like the Titanic's in train.csv, and its frame."""
    monkeypatch.chdir(tmp_path)
    return make("titanic", "csv")[0]


TRAIN = ["train", "train.csv", "--target", "Survived"]
USUAL = [*TRAIN, "--drop", "Boarded,PassengerId,Name", "--missing", "mean", "--output", "m.npz"]


def test_what_a_new_user_is_told_step_by_step(passengers, command):
    """Each refusal says what to type instead; what is typed then leads to the next."""
    for arguments, message in (
        (["train", "train.csv"], "train.csv: no labels: name their column (--target"),
        (
            ["train", "train.csv", "--target", "survived"],
            'train.csv: no column "survived" (did you mean "Survived"?); there are PassengerId, ',
        ),
        (TRAIN, 'column "Boarded": dates, which are neither numbers nor categories: leave out '
         "(--drop Boarded; in Python drop="),
        ([*TRAIN, "--drop", "Boarded"], 'column "Name": more than 1,000 values, such as "Doe, '),
        ([*TRAIN, "--drop", "Boarded"], "leave out (--drop Name;"),
        ([*TRAIN, "--drop", "Boarded"], "or allow more (--max-categories 5000;"),
        ([*TRAIN, "--drop", "Boarded,Name"], 'column "Age": missing or infinite value in row'),
        ([*TRAIN, "--drop", "Boarded,Name"], "so that these are filled in (--missing mean;"),
        ([*TRAIN, "--drop", "Boarded,name"], 'no column "name" (did you mean "Name"?)'),
        ([*TRAIN, "--features", "Age,Sexx"], 'columns: Sexx (did you mean "Sex"?)'),
        ([*TRAIN, "--weight", "Fair"], 'no column "Fair" (did you mean "Fare"?)'),
        ([*TRAIN, "--missing", "median"], "--missing"),
        ([*TRAIN, "--max-categories", "0"], "--max-categories"),
        ([*USUAL, "--compare", "--class-weight", "balanced"], "--compare: expected neither"),
        ([*USUAL, "--stream", "--max-categories", "2"], 'column "Embarked": more than 2 values'),
    ):  # fmt: skip
        result = command(*arguments)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert message in result.err
    result = command(*USUAL)
    assert (result.code, result.err) == (0, "")
    few = passengers[["Sex", "Age", "Fare"]].rename(columns={"Sex": "sex"})
    few.to_csv("few.csv", index=False)
    result = command("predict", "m.npz", "few.csv")
    assert result.err == (
        'error: few.csv: missing feature columns: Pclass, Sex, Embarked, Alone (did you mean "sex"?'
        " for Sex); there are sex, Age, Fare\n"
    )


def test_text_by_mistake_is_told(passengers, command):
    ages = passengers["Age"].astype(object).where(passengers["Age"].notna(), "?")
    passengers.assign(Age=ages).to_csv("train.csv", index=False)
    for stream in ([], ["--stream"]):
        result = command(*USUAL, *stream)
        assert result.code == 0
        assert (
            'column "Age" is read as text: if it should be numbers, store numbers and not "?": '
            "leave empty where a number is missing"
        ) in result.err
    fares = passengers["Fare"].astype(str).where(passengers.index % 99 > 0, " ")
    passengers.assign(Fare=fares).to_csv("train.csv", index=False)
    result = command(*USUAL)
    assert 'column "Fare": more than 1,000 values, such as " ", ' in result.err
    assert 'would be a feature: store numbers and not " ": leave empty where' in result.err
    passengers[:300].to_csv("train.csv", index=False)
    result = command(*TRAIN, "--drop", "Boarded", "--missing", "mean")
    assert 'column "Name" has 240 values in 240 training rows' in result.err


@pytest.mark.parametrize("form", ["{:,.2f}", "{:.0f}%", "${:.2f}", "{:.1f}"])
def test_numbers_as_spreadsheets_show_them_are_told(form, passengers, command):
    texts = [form.format(1000 * (i % 50 + 1.5)) for i in range(len(passengers))]
    texts = [text.replace(".", ",") for text in texts] if form == "{:.1f}" else texts
    passengers.assign(Fare=texts).to_csv("train.csv", index=False)
    assert (
        'column "Fare" is read as text: if it should be numbers, store numbers as 1234.5, and not "'
    ) in command(*USUAL).err


def test_info_of_a_model(passengers, command):
    assert command(*USUAL, "--class-weight", "balanced").code == 0
    result = command("info", "m.npz")
    assert result.code == 0, result.err
    for text in (
        "2: 0, 1", "Survived", "fastsoftmax train train.csv --target Survived", "training rows",
        "numbers; 2", "and a feature that says so", "2 values: False, True",
        "3 values, and missing ones: C, Q, S", "12, from 6 columns", "0.1.0",
    ):  # fmt: skip
        assert text in result.out
    assert command("info", "train.csv").err.startswith("error: train.csv: not a ")
    assert command("info", "no.npz").err == "error: no.npz: no such file\n"


def test_names_in_brackets_are_no_markup(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"[red]": ["[bold]", "[/]"] * 50, "y": ["[i]a", "b"] * 50})
    frame.to_csv("[a].csv", index=False)
    result = command("train", "[a].csv", "--target", "y", "--output", "[m].npz")
    assert (result.code, result.err) == (0, "")
    assert "[m].npz" in result.out
    for name in ("info", "coefficients"):
        result = command(name, "[m].npz")
        assert (result.code, result.err) == (0, "")
        assert "[red]" in result.out
        assert "[i]a" in result.out
    pd.DataFrame({"[red]": ["[bold]", "[b]"]}).to_csv("new.csv", index=False)
    assert 'column "[red]": 1 row has a value that training did not have' in (
        command("predict", "[m].npz", "new.csv").err
    )


def test_quotes_keep_commas_in_names(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((200, 3)), columns=["a, b", "c", "d"])
    frame.assign(y=(frame["c"] > 0.5).astype(int)).to_csv("a.csv", index=False)
    for options, names in (
        (["--drop", '"a, b"'], ["c", "d"]),
        (["--drop", '"a, b", d'], ["c"]),
        (["--features", 'd,"a, b"'], ["d", "a, b"]),
        (["--features", "c", "--features", "d"], ["c", "d"]),
        (["--features", "c,d", "--drop", "c"], ["d"]),
    ):
        assert command("train", "a.csv", "--target", "y", *options, "--output", "m.npz").code == 0
        assert load_model(tmp_path / "m.npz").feature_names == names


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["memory", "stream"])
def test_weights_of_rows_and_classes(stream, passengers, tmp_path, command):
    """A row of weight 2 is two rows; classes that are balanced weigh the same."""
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 3, len(passengers))
    passengers.assign(w=weights).to_csv("train.csv", index=False)
    options = ["--weight", "w", "--class-weight", "balanced", "--l2", L2, "--tol", "1e-7"]
    result = command(*USUAL, *options, "--dtype", "float64", *stream)
    assert (result.code, result.err) == (0, "")
    saved = load_model(tmp_path / "m.npz")
    assert not any(name.startswith("w") for name in saved.feature_names)
    if stream:
        rows = np.random.PCG64(0).random_raw(len(passengers)) >= np.uint64(0.2 * 2**64)
    else:
        y = passengers["Survived"]
        numbers, _ = train_test_split(np.arange(len(y)), test_size=0.2, random_state=0, stratify=y)
        rows = np.isin(np.arange(len(y)), numbers)
    frame, weights = passengers[rows], weights[rows]
    of_class = weights.sum() / 2 / np.bincount(frame["Survived"], weights)
    weights = weights * of_class[frame["Survived"]]
    X = frame.drop(columns=["Survived", "PassengerId", "Name", "Boarded"])
    reference = pipeline(frame, "Survived", "PassengerId,Name,Boarded", ["Sex", "Embarked"])
    strength = L2 * weights.sum()
    classifier = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-9)
    classifier.fit(reference[0].transform(X), frame["Survived"], weights)
    difference = saved.model.coef_[1] - saved.model.coef_[0]
    names = [name.split("__")[1] for name in reference[0].get_feature_names_out()]
    order = [saved.feature_names.index(name) for name in names]
    np.testing.assert_allclose(difference[order], classifier.coef_[0], rtol=1e-3, atol=1e-4)


def test_coefficients(passengers, tmp_path, command):
    assert command(*USUAL).code == 0
    result = command("coefficients", "m.npz", "--top", 3)
    assert (result.code, result.err) == (0, "")
    shown = result.out.split("class 1")[1]
    assert "Sex_female" in shown
    assert result.out.count("│ Sex_") + result.out.count("│ Pclass") >= 4
    assert command("coefficients", "m.npz", "--output", "c.csv").code == 0
    table, saved = pd.read_csv("c.csv"), load_model(tmp_path / "m.npz")
    assert len(table) == 2 * len(saved.feature_names)
    of_class = table[table["class"] == 1].set_index("feature")
    np.testing.assert_allclose(of_class.loc[saved.feature_names, "weight"], saved.model.coef_[1])
    sizes = of_class["weight x spread"].abs()
    assert sizes.is_monotonic_decreasing
    numbers, _ = train_test_split(
        np.arange(3000), test_size=0.2, random_state=0, stratify=passengers["Survived"]
    )
    fares = passengers["Fare"].iloc[numbers]
    assert of_class.loc["Fare", "spread"] == pytest.approx(fares.std(ddof=0), rel=1e-4)
    assert command("coefficients", "m.npz", "--output", "m.npz").code == 2
    assert command("coefficients", "m.npz", "--top", "0").code == 2


@pytest.mark.parametrize("wide", [False, True])
def test_spreads_of_a_stream(wide, tmp_path, monkeypatch, command):
    """Far from 0 as well, where squares have too few digits; dense, and as CSR."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"year": 2000 + rng.random(6000), "y": rng.integers(0, 2, 6000)})
    frame["code"] = [f"c{i}" for i in rng.integers(0, 300 if wide else 5, 6000)]
    frame.to_parquet("a.parquet", row_group_size=999)
    monkeypatch.setattr("fastsoftmax.sources._chunk_source._CHUNK_BYTES", 0)
    options = ["--target", "y", "--stream", "--dtype", "float64", "--output", "m.npz"]
    result = command("train", "a.parquet", *options)
    assert (result.code, ", as CSR" in result.out) == (0, wide), result.err
    saved = load_model(tmp_path / "m.npz")
    rows = np.random.PCG64(0).random_raw(6000) >= np.uint64(0.2 * 2**64)
    want = [frame["year"][rows].std(ddof=0), (frame["code"] == "c3")[rows].std(ddof=0)]
    found = dict(zip(saved.feature_names, saved.spread, strict=True))
    np.testing.assert_allclose([found["year"], found["code_c3"]], want, rtol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [np.asarray, csr_array])
def test_spreads_of_any_size(make, dtype):
    """Squares of these overflow or are 0; later rows may differ from the first ones in size."""
    size = np.array([1e-30, 1.0, 1e30] if dtype is np.float32 else [1e-180, 1e-100, 1.0])
    size = size if make is np.asarray else size[:1]  # CSR has one scale for all
    X = (np.random.default_rng(0).standard_normal((9000, 3)) * size).astype(dtype)
    for factor in (1.0, 1e-30, 0.0):
        Y = X.copy()
        Y[:5000] *= dtype(factor)
        spreads = Spreads(3)
        spreads.add(make(Y[:6000]))
        spreads.add(make(Y[6000:]))
        np.testing.assert_allclose(spreads.result() / size, (Y / size).std(axis=0), rtol=1e-4)


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["memory", "stream"])
def test_large_features_make_a_readable_model(stream, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"a": [1e30, 2e30, -1e30, -2e30] * 10, "y": [1, 1, 0, 0] * 10})
    frame.to_csv("a.csv", index=False)
    result = command("train", "a.csv", "--target", "y", "--output", "m.npz", *stream)
    assert result.code == 0 and "overflow" not in result.err
    assert command("evaluate", "m.npz", "a.csv").code == 0


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["memory", "stream"])
def test_checkpoints_of_tables(stream, passengers, command):
    arguments = [*USUAL, "--checkpoint", "c.npz", *stream]
    assert command(*arguments, "--max-iter", "2").code == 0
    result = command(*arguments, "--resume")
    assert (result.code, "going on from iteration 2" in result.err) == (0, True)
    result = command(*arguments, "--resume", "--class-weight", "balanced")
    assert (result.code, "class_weight was None there" in result.err) == (2, True)
