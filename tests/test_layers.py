"""The folders are layers: what a module imports lies below it, and nothing goes in a circle.

All imports count, those inside functions and under TYPE_CHECKING as well.
"""

import ast
import re
from pathlib import Path

import pytest

import fastsoftmax

ROOT = Path(fastsoftmax.__path__[0])
# From the top to the bottom; neighbours on one line don't import each other.
LAYERS = [
    {"cli"},
    {"dask", "torch"},
    {"linear_model", "_warmup"},
    {"sources"},
    {"_optimize"},
    {"objective", "functional", "scoring", "special"},
    {"_evaluation"},
    {"_kernels"},
    {"reference"},
]
# The same inside the kernels' folder.
KERNELS = [
    {"linear", "rows", "algebra"},
    {"softmax"},
    {"tasks"},
    {"team"},
    {"vector"},
    {"jit"},
    {"cache"},
    {"objects"},
    {"modes"},
]
RANK = {name: i for i, names in enumerate(LAYERS) for name in names}
KERNEL_RANK = {name: i for i, names in enumerate(KERNELS) for name in names}


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(path):
    """Modules of the package that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
    return {name for name in found if name.split(".")[0] == "fastsoftmax"}


GRAPH = {name: imports(path) for name, path in MODULES.items()}


def layer(name):
    return name.split(".")[1] if "." in name else None


def test_every_entry_has_its_layer():
    entries = {layer(name) for name in MODULES} - {None}
    assert entries <= set(RANK)
    assert len(entries) <= 14
    inner = {name.split(".")[2] for name in MODULES if name.startswith("fastsoftmax._kernels.")}
    assert inner == set(KERNEL_RANK)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "fastsoftmax"])
def test_imports_go_down(name):
    for other in GRAPH[name] - {"fastsoftmax"}:
        above, below = layer(name), layer(other)
        assert above == below or RANK[above] < RANK[below], f"{name} imports {other}"
        if above == below == "_kernels":
            above, below = name.split(".")[2], other.split(".")[2]
            assert above == below or KERNEL_RANK[above] < KERNEL_RANK[below], (
                f"{name} imports {other}"
            )


def test_the_package_itself_is_imported_by_the_command_line_alone():
    assert {layer(name) for name, found in GRAPH.items() if "fastsoftmax" in found} <= {"cli"}


def test_there_is_no_circle():
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, " → ".join([*under_way, name])
        if name not in done:
            under_way.append(name)
            for other in GRAPH.get(name, ()):
                visit(other)
            under_way.pop()
            done.add(name)

    for name in MODULES:
        visit(name)


def test_reference_imports_numpy_alone():
    text = MODULES["fastsoftmax.reference"].read_text()
    found = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
    assert found == {"typing", "numpy"}


def test_only_the_folder_vector_and_jit_know_llvm():
    for name, path in MODULES.items():
        if re.search(r"^\s*(?:from|import) llvmlite", path.read_text(), re.MULTILINE):
            assert name.startswith(("fastsoftmax._kernels.vector.", "fastsoftmax._kernels.jit"))


# Libraries whose private names are used, for want of public ones: each place with its number.
FOREIGN = {
    "_kernels/jit.py": 6,  # Numba's disk cache and code libraries
    "linear_model/_callbacks.py": 1,  # scikit-learn's callbacks
    "linear_model/_labels.py": 1,  # _check_sample_weight
    "linear_model/_logistic.py": 1,  # _fit_context
    "linear_model/_logistic_cv.py": 1,  # _fit_context
    "linear_model/_cv_scores.py": 3,  # what scorers call, to tell it of all labels
}


# Names with an underscore that are public: of NamedTuples, and of the module os.
PUBLIC = {"_fields", "_replace", "_asdict", "_exit"}


def private_uses(path):
    """Private names of other modules that a file imports, or reaches for in other objects."""
    found = []
    tree = ast.parse(path.read_text())
    own = {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    own |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("self", "cls")
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [
                alias.name for alias in node.names if f"{node.module}.{alias.name}" not in MODULES
            ]
        elif isinstance(node, ast.Attribute):
            names = [node.attr] if node.attr not in own else []
        found += [
            n for n in names if n.startswith("_") and not n.endswith("__") and n not in PUBLIC
        ]
    return found


def test_private_names_stay_in_their_module():
    counts = {}
    for path in MODULES.values():
        found = private_uses(path)
        if found:
            counts[str(path.relative_to(ROOT))] = len(found)
    beyond = {path: n for path, n in counts.items() if n > FOREIGN.get(path, 0)}
    assert not beyond
    assert sum(counts.values()) <= 13


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_are_short(name):
    path = MODULES[name]
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            start = body[0].lineno if body else node.end_lineno
            assert node.end_lineno - start + 1 <= 60, f"{name}: {node.name}"
