"""Bytes made of a buffer: what ``bytes(buffer)`` makes, in less time when they are long.

Fresh memory comes a page at a time, each with a fault: for long bytes that takes six times as long as the copy. So
their memory is asked for in huge pages, as numpy does for its arrays; and they are copied without the interpreter lock.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from shoal._values import kept_memory

#: Below this there would be hardly a whole huge page, which has 2 MiB where pages have 4 KiB.
HUGE_BYTES = 4 * 1024 * 1024
#: ``madvise`` advice: huge pages, if the system has any to give.
_MADV_HUGEPAGE = 14

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype = ctypes.py_object
_new_bytes.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
_start_of = ctypes.pythonapi.PyBytes_AsString
_start_of.restype = ctypes.c_void_p
_start_of.argtypes = [ctypes.py_object]
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _Py_buffer(ctypes.Structure):
    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


def address_of(view: memoryview) -> int:
    """Of a buffer's bytes, read-only ones too (``ctypes.from_buffer`` refuses those)."""
    raw = _Py_buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(raw), 0)
    try:
        return int(raw.buf)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(raw))


def make_bytes(buffer: Any) -> bytes:
    """A copy of ``buffer``; itself if it is bytes."""
    if type(buffer) is bytes or len(buffer) < kept_memory.LONG_BYTES:
        return bytes(buffer)
    kept_memory.made()
    size = len(buffer)
    if size < HUGE_BYTES:
        return bytes(buffer)
    made: bytes = _new_bytes(None, size)
    start = _start_of(made)
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    _madvise(first, start + size - first, _MADV_HUGEPAGE)  # refused where there are none
    ctypes.memmove(start, address_of(buffer), size)
    return made
