"""The micro-kernel: every matrix product of softmax regression is a call of `contract`."""

from functools import partial
from itertools import product

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.emit import HEIGHT, WIDTH, codegen
from fastsoftmax._kernels.vector.simd import lanes_of


# There are 14 parameters rather than six tuples because the type of a tuple tells literal numbers
# from variables: Numba would compile all loops again for nearly every call (three calls with tuples
# made three specialisations).
@helper
def contract(
    height, width, depth, a, a_row, a_step, b, b_row, c, c_row, start, start_row, ahead, pace
):
    """c[i, :] = start[i·start_row, :] + Σ_p a[i·a_row + p·a_step] · b[p·b_row, :] in registers.

    ``height`` (1 to HEIGHT) rows of ``width`` (1 to WIDTH) vectors are held in registers while p
    runs over ``depth`` (at least 1). With ``start_row`` = 0 the scalar start[i] is added to row i,
    otherwise the vectors at start[i·start_row]. It is added at the end: when sums began with it,
    those of a million equal rows lost two of a float32's digits. At step p the two cache lines at
    byte address ``ahead`` + p·pace are prefetched: spread over the arithmetic, the traffic hides
    behind it, where a burst of prefetches stalls on the core's 16 line buffers.

    One loop is emitted for each shape, behind a switch, which LLVM compiles faster than Numba types
    one specialisation for each; and behind a function, so that all products share the loops.
    """
    _contract(
        (height, width, depth), (a, a_row, a_step), (b, b_row), (c, c_row), (start, start_row),
        (ahead, pace),
    )  # fmt: skip


@helper
def contract_runs(
    height, width, depth, runs, a, a_row, a_step, a_run, b, b_row, b_run, c, c_row, start,
    start_row, ahead, pace,
):  # fmt: skip
    """`contract`, of several runs of ``depth`` steps, whose a and b lie a_run and b_run apart.

    In float64 on AVX2, where a tile has 16 rows, sums that went to memory for each tile took a
    tenth of the time. The loop around the loop costs short products some 5 %, so that `contract`
    has none.
    """
    _contract(
        (height, width, depth, runs), (a, a_row, a_step, a_run), (b, b_row, b_run), (c, c_row),
        (start, start_row), (ahead, pace),
    )  # fmt: skip


@intrinsic
def _contract(typingctx, shape, a, b, c, start, ahead):
    lanes = lanes_of(a[0].dtype)

    def switch(builder, shape, *operands):
        height, width, *steps = shape
        key = builder.add(builder.mul(height, emit.I64(WIDTH + 1)), width)
        cases = [
            (h * (WIDTH + 1) + w, partial(_emit_tile, builder, (h, w), lanes, steps, operands))
            for h, w in product(range(1, HEIGHT + 1), range(1, WIDTH + 1))
        ]
        emit.switch(builder, key, cases)

    return types.void(shape, a, b, c, start, ahead), codegen(switch)


def _emit_tile(builder, size, lanes, steps, operands):
    """Emit the loops of a tile of (rows, vectors): over the depth, and over runs, if there are."""
    (height, width), c = size, operands[2]
    (a, a_row, a_step, *a_run), (b, b_row, *b_run), _, (start, start_row), (ahead, pace) = operands
    a_rows = [emit.row(builder, a, i, a_row) for i in range(height)]
    places = list(product(range(height), range(width)))
    zeros = ir.VectorType(a.type.pointee, lanes)(0.0)

    def steps_from(b, offset, line, sums):
        def step(p, values):
            b_p, offset, *sums = values
            here = builder.add(line, builder.mul(p, pace))
            for address in (here, builder.add(here, emit.I64(64))):
                emit.prefetch(builder, builder.inttoptr(address, emit.BYTE_POINTER))
            b_vectors = [
                emit.load(builder, builder.gep(b_p, [emit.I64(j * lanes)]), lanes)
                for j in range(width)
            ]
            updated = []
            for i, row in enumerate(a_rows):  # one broadcast at a time: more would not fit
                factor = emit.splat(builder, builder.load(builder.gep(row, [offset])), lanes)
                for j, vector in enumerate(b_vectors):
                    updated.append(emit.fma(builder, factor, vector, sums[i * width + j]))
            return [builder.gep(b_p, [b_row]), builder.add(offset, a_step), *updated]

        return emit.loop(builder, steps[0], [b, offset, *sums], step)[2:]

    def run(_, values):
        b_r, offset, line, *sums = values
        sums = steps_from(b_r, offset, line, sums)
        line = builder.add(line, builder.mul(steps[0], pace))
        return [builder.gep(b_r, b_run), builder.add(offset, *a_run), line, *sums]

    first = [b, emit.I64(0), ahead]
    sums = [zeros] * len(places)
    if a_run:
        sums = emit.loop(builder, steps[1], [*first, *sums], run)[3:]
    else:
        sums = steps_from(*first, sums)

    def scalar(i, j):
        first = builder.load(builder.gep(start, [emit.I64(i)]))
        return emit.splat(builder, first, lanes)

    def vector(i, j):
        return emit.load(builder, _place(builder, start, start_row, i, j * lanes), lanes)

    with builder.if_else(builder.icmp_signed("==", start_row, emit.I64(0))) as branches:
        for branch, first in zip(branches, (scalar, vector), strict=True):
            with branch:
                for (i, j), total in zip(places, sums, strict=True):
                    result = builder.fadd(first(i, j), total)
                    emit.store(builder, result, _place(builder, *c, i, j * lanes))


def _place(builder, p, stride, i, offset):
    return builder.gep(p, [builder.add(builder.mul(stride, emit.I64(i)), emit.I64(offset))])
