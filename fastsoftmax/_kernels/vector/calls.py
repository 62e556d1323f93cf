"""Calls as data: packed by one thread, to be made by any."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastsoftmax._kernels.vector import emit


@intrinsic
def pack_call(typingctx, worker, arguments):
    """Pack a call of a worker, with counters behind its arguments; any thread can `make_call` it.

    Returns two addresses: of a function that takes a pointer, and of the packed data that it takes.
    The data, which are the counters and the arguments, lie in the stack frame of the function that
    packs: the call can be made until that returns. No status is looked at, as kernels never raise.

    A plain call in a parallel loop would be simpler. But Numba optimises and translates a function
    again for each that calls it, directly or through others, and a parallel loop has four levels of
    them: with a plain call the first evaluation compiled for 17 s.
    """
    counters_type = types.CPointer(types.intp)
    signature = worker.get_call_type(typingctx, (*arguments.types, counters_type), {})

    def generate(context, builder, _, args):
        compiled = worker.dispatcher.overloads[signature.args]
        context.active_code_library.add_linking_library(compiled.library)
        counters = ir.ArrayType(emit.I64, 2)
        content = cgutils.pack_struct(builder, [counters([0, 0]), args[1]])
        data = cgutils.alloca_once_value(builder, content)
        unpacker_type = ir.FunctionType(ir.VoidType(), [emit.BYTE_POINTER])
        name = builder.module.get_unique_name("fastsoftmax.unpack_and_call")
        unpacker = ir.Function(builder.module, unpacker_type, name)
        unpacker.linkage = "internal"
        unpacker.attributes.add("noinline")  # its caller calls it, as every other thread does
        inside = ir.IRBuilder(unpacker.append_basic_block())
        packed = inside.bitcast(unpacker.args[0], data.type)
        first_counter = inside.gep(packed, [emit.I32(0), emit.I32(0), emit.I32(0)])
        packed_arguments = inside.load(inside.gep(packed, [emit.I32(0), emit.I32(1)]))
        values = [*cgutils.unpack_tuple(inside, packed_arguments), first_counter]
        context.call_internal_no_propagate(inside, compiled.fndesc, signature, values)
        inside.ret_void()
        addresses = [builder.ptrtoint(value, emit.I64) for value in (unpacker, data)]
        return context.make_tuple(builder, types.UniTuple(types.intp, 2), addresses)

    return types.UniTuple(types.intp, 2)(worker, arguments), generate


@intrinsic
def call_at(typingctx, address, arguments):
    """Call the kernel at a `native_address`, which takes these arguments."""

    def generate(context, builder, signature, args):
        kernel_type = context.call_conv.get_function_type(types.none, arguments.types)
        kernel = builder.inttoptr(args[0], kernel_type.as_pointer())
        values = cgutils.unpack_tuple(builder, args[1])
        context.call_conv.call_function(builder, kernel, types.none, arguments.types, values)
        return context.get_dummy_value()

    return types.none(address, arguments), generate


@intrinsic
def make_call(typingctx, unpacker, data):
    """Make a packed call, given its two addresses."""

    def generate(context, builder, signature, args):
        unpacker_type = ir.FunctionType(ir.VoidType(), [emit.BYTE_POINTER])
        function = builder.inttoptr(args[0], unpacker_type.as_pointer())
        builder.call(function, [builder.inttoptr(args[1], emit.BYTE_POINTER)])
        return context.get_dummy_value()

    return types.none(types.intp, types.intp), generate
