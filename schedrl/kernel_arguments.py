"""NamedTuples of arrays as arguments of kernels, passed by reference.

Numba passes a NamedTuple by value, as seven or more numbers for every array in it: with a hundred arrays each function,
each call and each entry from Python has a thousand, and compiling those takes several times as long as the
work that kernels do. A NamedTuple marked here reaches kernels as one pointer to a table of its arrays, and a kernel
reads from it what it needs. Kernels can read its fields and pass it on; they cannot index, build or return one.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    models,
    register_model,
    typeof_impl,
    unbox,
)

__all__ = ["by_reference"]

_Class = TypeVar("_Class", bound=type)
_BYTE, _INT32, _WORD = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = 8


class _Arrays(types.Type):
    """The type of a NamedTuple of arrays.

    Its name stands for all fields: comparing, hashing and printing those would take numba most of its time.
    """

    def __init__(self, owner: str, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.offsets: dict[str, int] = {}
        self.size = 0
        for field, kind in fields.items():
            self.offsets[field] = self.size
            # Numba's own layout: reference count, owner, length, item size, data, then extents and strides.
            self.size += kind.size if isinstance(kind, _Arrays) else _BYTES * (5 + 2 * kind.ndim)
        digest = hashlib.sha256(repr([(field, str(kind)) for field, kind in fields.items()]).encode()).hexdigest()
        super().__init__(f"{owner}.{digest[:16]}")


def by_reference(cls: _Class) -> _Class:
    """Mark a NamedTuple class whose fields are all arrays, or such tuples."""
    owner = f"{cls.__module__}.{cls.__qualname__}"

    def arrays_of(value: Any, context: Any) -> _Arrays:
        fields = {field: typeof(part) for field, part in value._asdict().items()}
        for field, kind in fields.items():
            if not isinstance(kind, types.Array | _Arrays):
                raise TypeError(f"{owner}.{field}: {kind}, expected an array or a marked tuple")
        return _Arrays(owner, fields)

    typeof_impl.register(cls, arrays_of)
    return cls


register_model(_Arrays)(models.OpaqueModel)


@infer_getattr
class _Fields(AttributeTemplate):
    key = _Arrays

    def generic_resolve(self, arrays: _Arrays, field: str) -> Any:  # type: ignore[override]
        return arrays.fields.get(field)


def _place(builder: Any, table: Any, offset: int, kind: Any) -> Any:
    return builder.bitcast(builder.gep(table, [ir.Constant(_INT32, offset)], inbounds=True), kind.as_pointer())


@lower_getattr_generic(_Arrays)
def _read_field(context: Any, builder: Any, arrays: _Arrays, table: Any, field: str) -> Any:
    array, start = arrays.fields[field], arrays.offsets[field]
    if isinstance(array, _Arrays):
        return _place(builder, table, start, _BYTE)
    struct = context.get_value_type(array)
    # Nothing writes to the table while a kernel runs, which LLVM cannot see by itself: the entry from Python fills it
    # and then calls the kernel, whose code numba never copies into the entry.
    unchanging = builder.module.add_metadata([])

    def load(index: int, kind: Any) -> Any:
        loaded = builder.load(_place(builder, table, start + _BYTES * index, kind))
        loaded.set_metadata("invariant.load", unchanging)
        return loaded

    value = ir.Constant(struct, ir.Undefined)
    value = builder.insert_value(value, ir.Constant(struct.elements[0], None), 0)
    value = builder.insert_value(value, load(1, struct.elements[1]), 1)
    value = builder.insert_value(value, load(2, _WORD), 2)
    value = builder.insert_value(value, ir.Constant(_WORD, context.get_abi_sizeof(struct.elements[4].pointee)), 3)
    value = builder.insert_value(value, load(4, struct.elements[4]), 4)
    for axis in range(array.ndim):
        value = builder.insert_value(value, load(5 + axis, _WORD), (5, axis))
        value = builder.insert_value(value, load(5 + array.ndim + axis, _WORD), (6, axis))
    return value


def _fill(c: Any, arrays: _Arrays, value: Any, table: Any) -> Any:
    """Describe the arrays of a Python tuple in a table; return a number that is 0 if all went well."""
    describe = cgutils.get_or_insert_function(
        c.builder.module, ir.FunctionType(_INT32, [c.pyapi.pyobj, c.pyapi.voidptr]), "numba_adapt_ndarray"
    )
    failed = ir.Constant(_INT32, 0)
    for position, (field, kind) in enumerate(arrays.fields.items()):
        part = c.pyapi.tuple_getitem(value, position)
        place = _place(c.builder, table, arrays.offsets[field], _BYTE)
        if isinstance(kind, _Arrays):
            failed = c.builder.or_(failed, _fill(c, kind, part, place))
        else:
            failed = c.builder.or_(failed, c.builder.call(describe, (part, place)))
    return failed


@unbox(_Arrays)
def _unbox(arrays: _Arrays, value: Any, c: Any) -> NativeValue:
    with c.builder.goto_entry_block():
        table = c.builder.alloca(ir.ArrayType(_WORD, arrays.size // _BYTES))
    pointer = c.builder.bitcast(table, c.pyapi.voidptr)
    # Dispatch has seen the type of every field, so that this fails only where that was got round.
    wrong = cgutils.is_not_null(c.builder, _fill(c, arrays, value, pointer))
    with c.builder.if_then(wrong, likely=False):
        c.pyapi.err_set_string("PyExc_TypeError", f"{arrays.name}: a field is not an array")
    return NativeValue(pointer, is_error=wrong)
