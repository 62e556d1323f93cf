"""Sparse features in rows: three arrays, checked."""

import dataclasses
from typing import Any, Self

import numpy as np

from fastsoftmax.reference import Array


@dataclasses.dataclass(frozen=True)
class CSR:
    """A checked CSR matrix: row i holds ``data[indptr[i]:indptr[i + 1]]`` at ``indices`` there.

    ``indptr`` is a copy of our own; the other two belong to the caller, and may change: kernels
    check each index again.
    """

    data: Array
    indices: Array
    indptr: Array
    shape: tuple[int, int]

    @classmethod
    def empty(cls, n_columns: int, dtype: np.dtype[Any]) -> Self:
        """Return a matrix without rows."""
        return cls(np.empty(0, dtype), np.empty(0, np.int32), np.zeros(1, np.int64), (0, n_columns))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return self.data.dtype

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def n_nonzeros(self) -> int:
        """Entries stored."""
        return int(self.indptr[-1] - self.indptr[0])

    def part(self, start: int, stop: int) -> Self:
        """View the rows from ``start`` to before ``stop``; no entry is copied."""
        first, last = self.indptr[start], self.indptr[stop]
        indptr = self.indptr[start : stop + 1] - first
        shape = (stop - start, self.shape[1])
        return type(self)(self.data[first:last], self.indices[first:last], indptr, shape)

    def joined(self, others: list[Self]) -> Self:
        """Copy these rows and, after them, those of ``others``, but no entry outside the rows."""
        parts = [part.part(0, len(part)) for part in (self, *others)]
        lengths = np.concatenate([np.diff(part.indptr) for part in parts])
        return type(self)(
            np.concatenate([part.data for part in parts]),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            (len(lengths), self.shape[1]),
        )

    def matrix(self) -> Any:
        """View the same arrays as SciPy's matrix."""
        from scipy.sparse import csr_array

        return csr_array((self.data, self.indices, self.indptr), shape=self.shape)

    def write(self, out: Array) -> None:
        """Write the matrix to ``out``, an array of its shape, as a dense one."""
        columns = self.indices.astype(np.int64)  # a copy: nobody changes it after the check
        if columns.view(np.uint64).max(initial=0) >= self.shape[1] and len(columns):
            raise ValueError("X: column indices out of range: the matrix was changed meanwhile")
        rows = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        out[...] = 0
        np.add.at(out, (rows, columns), self.data.astype(out.dtype))

    def canonical(self) -> Self:
        """Return one entry a column and row: the matrix itself, or a copy where some add up."""
        matrix = self.matrix()
        if matrix.has_canonical_format:
            return self
        matrix = matrix.copy()
        matrix.sum_duplicates()
        return dataclasses.replace(
            self, data=matrix.data, indices=matrix.indices, indptr=matrix.indptr.astype(np.int64)
        )


def is_sparse(value: Any) -> bool:
    """Whether ``value`` is one of SciPy's sparse matrices or arrays, told without importing it."""
    return hasattr(value, "tocsr") and hasattr(value, "shape")


def as_csr(value: Any, name: str) -> CSR:
    """Check a CSR matrix; only row pointers, and arrays in foreign byte order, are copied."""
    if getattr(value, "format", None) != "csr":
        raise TypeError(
            f"{name}: expected a dense array or a CSR matrix, got {type(value).__name__}; "
            "convert it once with .tocsr()"
        )
    if len(value.shape) != 2:
        raise ValueError(f"{name}: expected shape (n_samples, n_features), got {value.shape}")
    n_rows, n_columns = (int(n) for n in value.shape)
    indptr = np.array(value.indptr, np.int64)  # copied: kernels rely on it
    data, indices = _native(value.data), _native(value.indices)
    if data.dtype.name in ("float16", "bfloat16"):  # only dense ones are read as they lie
        data = data.astype(np.float32)
    if indices.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        raise TypeError(f"{name}: expected int32 or int64 indices, got {indices.dtype}")
    # Compared, not subtracted: a difference may wrap around.
    if indptr.shape != (n_rows + 1,) or indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():
        raise ValueError(
            f"{name}: expected indptr of {n_rows + 1} ascending numbers from 0: "
            "the matrix is corrupt"
        )
    if indptr[-1] > min(len(indices), len(data)):
        raise ValueError(
            f"{name}: indptr ends at {indptr[-1]}, but there are {len(indices)} indices and "
            f"{len(data)} values: the matrix is corrupt"
        )
    # Unsigned, a negative index is a huge one: one pass finds both.
    used = indices[: indptr[-1]]
    if used.view(f"u{used.itemsize}").max(initial=0) >= n_columns and len(used):
        raise ValueError(
            f"{name}: expected column indices in [0, {n_columns}), got some from {used.min()} "
            f"to {used.max()}: the matrix is corrupt"
        )
    return CSR(data, indices, indptr, (n_rows, n_columns))


def _native(array: Array) -> Array:
    """Return a contiguous array in native byte order, the same one where it is that already."""
    native = array.dtype.newbyteorder("=")
    return np.require(array, native, ["C", "A"])
