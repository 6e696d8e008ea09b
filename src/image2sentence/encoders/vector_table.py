"""Tables of int8 vectors in model folders."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_HEAD = re.compile(
    rb"\x93NUMPY\x01\0..\{'descr': '\|i1', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,9})\), \} *\n",
    re.DOTALL,
)


def read_vector_table(content: bytes) -> NDArray[np.int8]:
    """(n, d) int8 of what `numpy.save` writes of such a table.

    NumPy's own reader evaluates the header as Python, and makes room for whatever it announces before it looks for the
    values.

    Raises ValueError where it is no such table, or holds more or fewer values than it says.
    """
    head = _HEAD.match(content)
    if head is None:
        raise ValueError("expected a .npy file of int8 (n, d) by rows")
    shape = int(head[1]), int(head[2])
    if shape[0] * shape[1] != len(content) - head.end():
        raise ValueError(f"it does not hold as many values as {shape} says")
    return np.frombuffer(content, np.int8, offset=head.end()).reshape(shape)
