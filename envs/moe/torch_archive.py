"""Torch's ``.pt`` files read without torch, and without running anything that they contain.

Such a file is a ZIP archive of one pickle and raw storages. The pickle may only name storages and build tensors of
them; every other class or function in it becomes an inert mark. A storage is read when its array is asked for.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.errors import InstanceError

__all__ = ["TorchArchive", "open_archive"]

_MAX_PICKLE_BYTES = 2**28
_STORAGES: Mapping[str, str] = MappingProxyType(
    {
        "ByteStorage": "u1",
        "CharStorage": "i1",
        "ShortStorage": "i2",
        "IntStorage": "i4",
        "LongStorage": "i8",
        "HalfStorage": "f2",
        "FloatStorage": "f4",
        "DoubleStorage": "f8",
    }
)


class _Mark:
    """What stands for a name in the pickle that means nothing here."""

    def __init__(self, *_: Any) -> None:
        pass


@dataclass
class _Tensor:
    """Where the values of a tensor are: a storage, and which of its values in which order. Not checked yet."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Everything returned is new for this file: a pickle can set attributes of what it is given.
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if (module, name) == ("collections", "OrderedDict"):
            return lambda *_: {}
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        return type("_Unknown", (_Mark,), {})

    def persistent_load(self, pid: Any) -> Any:
        return pid


@dataclass(frozen=True, slots=True)
class TorchArchive:
    """An open archive: its plain data, in which tensors are opaque until ``array`` reads them."""

    source: str
    """file, the start of every message"""
    data: Any
    _file: zipfile.ZipFile
    _folder: str

    def array(self, value: Any, field: str) -> np.ndarray[Any, Any]:
        """Return a copy of a tensor's values.

        Args:
            value: Part of ``data``.
            field: Its name in messages.

        Raises:
            InstanceError: no tensor of numbers, or one that its storage does not hold.
        """
        where = f"{self.source}: field {field}"
        if not isinstance(value, _Tensor):
            shown = "nothing" if value is None else type(value).__name__.lstrip("_")
            raise InstanceError(f"{where}: got {shown}, expected a tensor")
        if not _well_formed(value):
            raise InstanceError(f"{where}: broken tensor, or one of a type that holds no counts")
        kind, key = value.storage[1:3]
        order = ">" if _member(self._file, f"{self._folder}byteorder", None) == b"big" else "<"
        data = _member(self._file, f"{self._folder}data/{key}", where)
        values = np.frombuffer(data, dtype=order + kind, count=len(data) // np.dtype(kind).itemsize)
        last = value.offset + sum((n - 1) * s for n, s in zip(value.shape, value.strides, strict=True))
        # Without the first condition, strides of 0 could make an array of any size from one value.
        size = math.prod(value.shape)
        if size > len(values) or (size and last >= len(values)):
            raise InstanceError(f"{where}: shape {value.shape} does not fit {len(values)} stored values")
        if not size:
            return np.zeros(value.shape, dtype=kind)
        strides = [s * values.itemsize for s in value.strides]
        return np.lib.stride_tricks.as_strided(values[value.offset :], value.shape, strides).astype(kind)


def _well_formed(value: _Tensor) -> bool:
    if not all(isinstance(part, tuple) for part in (value.storage, value.shape, value.strides)):
        return False
    if len(value.storage) != 5 or len(value.shape) != len(value.strides):
        return False
    kind, key = value.storage[1:3]
    numbers = (value.offset, *value.shape, *value.strides)
    return (
        isinstance(kind, str)
        and kind in _STORAGES.values()
        and isinstance(key, str)
        and all(type(number) is int and 0 <= number < 2**40 for number in numbers)
        and len(value.shape) <= 8
    )


def _member(file: zipfile.ZipFile, name: str, where: str | None) -> bytes:
    """Return a member of an archive; ``where`` starts the message, None makes a missing member an empty one."""
    try:
        entry = file.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise InstanceError(f"{where}: member {name} is compressed, which torch never does")
        return file.read(entry)
    except KeyError:
        if where is None:
            return b""
        raise InstanceError(f"{where}: member {name} is missing") from None
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError):
        raise InstanceError(f"{where}: member {name} is broken") from None


@contextmanager
def open_archive(path: Path) -> Iterator[TorchArchive]:
    """Open what ``torch.save`` wrote.

    Raises:
        InstanceError: unreadable, no such archive, or a broken pickle.
    """
    source = str(path)
    try:
        file = zipfile.ZipFile(path)
    except OSError as error:
        raise InstanceError(f"{source}: cannot be read: {error.strerror}") from None
    except zipfile.BadZipFile:
        raise InstanceError(f"{source}: no torch archive, expected what torch.save writes") from None
    with file:
        names = [name for name in file.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1 or file.getinfo(names[0]).file_size > _MAX_PICKLE_BYTES:
            raise InstanceError(f"{source}: no torch archive, expected one data.pkl below 256 MiB")
        text = _member(file, names[0], source)
        try:
            data = _Unpickler(io.BytesIO(text)).load()
        except Exception as error:  # a broken pickle can raise anything
            raise InstanceError(f"{source}: broken pickle: {type(error).__name__}") from None
        yield TorchArchive(source, data, file, names[0].removesuffix("data.pkl"))
