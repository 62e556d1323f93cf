"""How rows of results reach memory: stored, or streamed past the caches.

A streamed vector saves reading the line that it overwrites, but only where the line is written at
once: written in two steps it is read first. So the vector where one row ends and the next begins is
put together in ``joint`` before it is streamed:

    memory   | a a a a | a a a a | a a b b | b b b b | …
    written    stream    stream    by joint  stream
"""

from typing import Any, NamedTuple

from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.softmax.loops import load_padded
from fastsoftmax._kernels.vector.simd import (
    advance,
    fma,
    lane_count,
    load,
    misalignment,
    splat,
    store,
    store_first,
    stream,
)


class FinishedRow(NamedTuple):
    """A row whose results are (source - shift)·factor + offset, and where they belong.

    Every mode needs some of the three operations, and the others leave the bits as they are:
    v - 0.0, v·1.0 and v + -0.0 (0.0 would turn a -0.0 into 0.0).
    """

    source: Any  # its exp, or its logits
    shift: Any  # vectors with the same number in each lane
    factor: Any
    offset: Any
    out: Any
    joint: Any  # room for two vectors


@inlined
def put(p, v, streamed):
    """Stream or store a vector."""
    if streamed:
        stream(p, v)
    else:
        store(p, v)


@inlined
def result(row, v):
    """Results of one vector of the row's source."""
    return fma(v - row.shift, row.factor, row.offset)


@inlined
def write_head(row, begin, first):
    """Write the results of a streamed row up to the first whole vector of memory, ``begin`` many.

    ``joint`` holds what the row before has left for the same vector, unless this is the first row.
    Where both were stored, reading the line first took a third of the time at (100k, 1000).
    """
    lanes = lane_count(row.source)
    value = result(row, load(row.source))
    if first:
        store_first(row.out, begin, value)
    else:
        store(advance(row.joint, lanes - begin), value)
        stream(advance(row.out, begin - lanes), load(row.joint))


@inlined
def write_rest(row, start, n, streamed, last):
    """Write results ``start`` to n of a row.

    Where results are streamed and another row follows, ``joint`` takes those that fill no vector.
    """
    lanes = lane_count(row.source)
    i = start
    while i + lanes <= n:
        put(advance(row.out, i), result(row, load(advance(row.source, i))), streamed)
        i += lanes
    if i < n:
        value = result(row, load_padded(row.source, i, n))  # these may be the last logits of all
        if streamed and not last:
            store(row.joint, value)
        else:
            store_first(advance(row.out, i), n - i, value)


@helper
def flush(buffer, n, out, last):
    """Stream n results from a buffer to ``out``, all of them if they are the ``last``.

    Otherwise those that fill no vector move to the front of the buffer; returns how many they are.
    """
    lanes, like = lane_count(buffer), load(buffer)
    unchanged = splat(0.0, like), splat(1.0, like), splat(-0.0, like)
    row = FinishedRow(buffer, *unchanged, out, buffer)
    head = min(misalignment(out), n)
    if head > 0:  # a store of no lanes reads its line from memory all the same
        write_head(row, head, True)
    write_rest(row, head, n, True, last)
    return 0 if last else (n - head) % lanes
