"""Try the installed package, away from its source tree: smoke.py FOLDER_OF_THE_SOURCE_TREE.

It runs what is installed: without scikit-learn the functions and the objective alone.
"""

import doctest
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata, resources
from pathlib import Path

import numpy as np

import fastsoftmax
from fastsoftmax import special
from fastsoftmax._kernels import objects

installed, tree = Path(fastsoftmax.__file__).resolve(), Path(sys.argv[1]).resolve()
assert tree not in installed.parents, f"{installed} is in the source tree"
assert metadata.version("fastsoftmax") == fastsoftmax.__version__
assert resources.files(fastsoftmax).joinpath("py.typed").is_file()
tops = {Path(str(file)).parts[0] for file in metadata.files("fastsoftmax") or []}
others = {top for top in tops if not top.endswith(".dist-info")} - {"fastsoftmax", ".."}
assert not others, f"the wheel has more than the package: {others}"

with tempfile.TemporaryDirectory() as cache:
    # What the wheel has object code of is not compiled, with the Python and Numba that built it.
    call = "import fastsoftmax as fs; fs.softmax([[1.0, 2.0]], axis=1)"
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    subprocess.run([sys.executable, "-I", "-c", call], env=environment, check=True)
    compiled = [path.name for path in Path(cache).rglob("*.nbc")]
    carried = list(objects.FOLDER.glob(f"*.py{sys.version_info[0]}{sys.version_info[1]}.*.nbc"))
    assert not (compiled and carried), f"compiled in spite of {len(carried)} carried: {compiled}"
    if sys.version_info[:2] == (3, 11) and objects.own_level() is not None:
        assert carried, "the wheel has no object code"

p = fastsoftmax.softmax(np.log([[1.0, 3.0], [2.0, 2.0]]), axis=1)
assert np.allclose(p, [[0.25, 0.75], [0.5, 0.5]])
example = doctest.DocTestFinder(recurse=False).find(special.softmax, "softmax", module=special)
assert doctest.DocTestRunner().run(example[0]).failed == 0
objective = fastsoftmax.SoftmaxObjective(np.eye(3), [0, 1, 2], l2=0.1)
loss, gradient = objective(objective.x0)
assert np.isclose(loss, np.log(3)) and gradient.shape == (12,)

tried = ["functions", "objective"]
if importlib.util.find_spec("sklearn") is None:
    try:
        import fastsoftmax.linear_model
    except ImportError as error:
        assert 'pip install "fastsoftmax[train]"' in str(error), error
else:
    from fastsoftmax.linear_model import LogisticRegression

    X = np.random.default_rng(0).standard_normal((500, 3))
    assert LogisticRegression().fit(X, X.argmax(axis=1)).score(X, X.argmax(axis=1)) > 0.9
    command = Path(sysconfig.get_path("scripts")) / "fastsoftmax"
    for arguments, shown in (("train digits", "accuracy"), ("info", fastsoftmax.__version__)):
        result = subprocess.run(
            [command, *arguments.split()], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0 and shown in result.stdout, result
    tried += ["estimators", "command line"]
print(f"Python {sys.version.split()[0]}, fastsoftmax {fastsoftmax.__version__}: {', '.join(tried)}")
