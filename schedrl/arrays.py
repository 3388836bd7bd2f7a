"""Array types and the shape letters that every array comment in this project uses.

Shape letters: B instances in a batch, N graph nodes, E edges, C candidate slots, R candidate rows
(all valid candidates of a batch, flattened), D devices, F features, J jobs, M machines, T time steps.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I8: TypeAlias = npt.NDArray[np.int8]
I16: TypeAlias = npt.NDArray[np.int16]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U64: TypeAlias = npt.NDArray[np.uint64]
Bool: TypeAlias = npt.NDArray[np.bool_]

__all__ = ["F32", "F64", "I8", "I16", "I32", "I64", "U64", "Bool"]
