"""What tests of Dask share: a small cluster, and dataframes."""

import dask.dataframe as dd
import pandas as pd
from distributed import LocalCluster


def start(**options):
    return LocalCluster(
        dashboard_address=":0", **{"n_workers": 2, "threads_per_worker": 1} | options
    )


def frames(X, y, s):
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]).assign(
        y=y, s=s, row=range(len(X))
    )
    frame = dd.from_pandas(frame, npartitions=6)
    # Of the first partitions nothing stays, and nobody knows how many rows are left.
    return frame[frame.row >= 2000]
