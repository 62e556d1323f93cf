r"""Softmax regression over rows that lie on Dask's workers.

    from dask.distributed import Client
    from fastsoftmax.dask import SoftmaxRegression

    client = Client(n_workers=2, threads_per_worker=1)      # processes on this machine, or
    client = Client("scheduler:8786")                       # a cluster that runs already
    model = SoftmaxRegression(l2=1e-4).fit(X, y)            # dask arrays or dataframes
    model.predict(X)                                        # a dask array, not computed yet

**How it works.** Every partition is loaded by a task of its own. The partitions are cut into
shares, ranges of about equal size, one a worker; a worker fetches the partitions of its share from
where they were loaded, once, and keeps them. An evaluation is one task a share: W goes out, each
worker sums loss and gradient in one sweep over its rows, and the sums are added in float64 in a
fixed tree: by further tasks where they are large, so that the client receives one sum, and by the
client where they are small. So the bits follow from the partitions and the number of shares
(``n_shares``), not from who computes what when. A share that dies with its worker is made again by
Dask from the graph that made it, as is W: a fit that loses workers ends with the same bits. A fit
begins with a sample of the rows, of about 64 MiB at most, sent to the client, which makes its
preconditioners of it (see `fastsoftmax._optimize.preconditioners`).

**What an evaluation costs**, for N rows on M workers:

    passes   one over each worker's rows; no row leaves its worker
    work     N/M · 4KD multiply-adds and additions, or reading N/M · D numbers if that is longer
    tasks    M, and about M/3 additions where K·D is large: 10 to 17 ms for two workers, then
             0.7 ms a task, which the scheduler takes
    bytes    down 4KD (8KD in float64) to every worker from the scheduler, or where K·D is large
             from each other: log₂M steps in a row; up 8KD from every worker, where K·D is large
             three at a time: 3·log₄M gradients in a row

Work and bytes are both proportional to K·D: what decides is the rows of a worker alone. The traffic
weighs as much as the work at a few thousand rows a worker, and the tasks at a few hundred thousand;
beyond that, twice the workers take half the time.

**On a real cluster** start one worker process a machine, or one for each NUMA node, with as many
threads as it has cores: ``dask worker scheduler:8786 --nworkers 1 --nthreads 32``. A task takes all
threads that Dask gave its worker, and tasks on one worker take turns, so that the kernels never use
more. While rows are loaded a worker needs room for its share twice, as it loads other partitions
than it keeps, and three times where partitions are small, as it puts those together. Partitions of
some hundred megabytes are best. Rows that are persisted, neighbours on the same worker, stay where
they are. Set ``NUMBA_CACHE_DIR`` to a directory of the machine's own, or the first evaluation
compiles in every process. Have the same versions of fastsoftmax, NumPy and Numba everywhere, the
scheduler included, and the same kind of CPU: block sizes follow from the CPU, and with them the
last bits.
"""

try:
    import dask  # noqa: F401
    import distributed  # noqa: F401
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        'fastsoftmax.dask needs Dask and scikit-learn: pip install "fastsoftmax[dask]"'
    ) from error

from fastsoftmax.dask._objective import SoftmaxObjective
from fastsoftmax.dask._regression import SoftmaxRegression

__all__ = ["SoftmaxObjective", "SoftmaxRegression"]
