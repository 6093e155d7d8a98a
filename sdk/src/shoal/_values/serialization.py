"""Values to bytes and back.

Plain data goes through the C pickler; functions, classes and instances of classes that the receiver could not
import go through cloudpickle. Large buffers (numpy, arrow, ``pickle.PickleBuffer``) stay out of band: in
the object store they are read in place.

A *packed* value is ``u32 pickle length, u32 count, count × u64 buffer length``, the pickle, then the
buffers, each on a 64-byte boundary from the start.
"""

from __future__ import annotations

import ctypes
import io
import pickle
import struct
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

import cloudpickle

from shoal._core.object_ref import EarlierSessionError, ObjectRef
from shoal._core.objects import MAX_INLINE_BYTES
from shoal._values import local_modules as _local_modules
from shoal._values import ref_pickling as _ref_pickling
from shoal._values.arrow import reduce_slice
from shoal._values.long_bytes import address_of, make_bytes
from shoal._values.ref_pickling import collected
from shoal._wire.value_kinds import BYTES, INLINE, PACKED

ALIGNMENT = 64
_HEAD = struct.Struct("<II")
#: What the C pickler alone pickles, and without any reference inside.
PLAIN: frozenset[type] = frozenset((int, float, str, bytes, bool, type(None)))

#: Longer bytes among arguments stay out of band too; for shorter ones the copy into the pickle costs less.
APART_BYTES = 32 * 1024

loads = pickle.loads


#: Registered reducers: as ``__reduce__``, for instances of exactly that class.
_custom: dict[type, Callable[[Any], Any]] = {}


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Pickle instances of exactly ``cls`` as ``deserializer(serializer(instance))``. Raises: TypeError."""
    for what, given in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(given):
            raise TypeError(f"{what} must be a function, not {type(given).__name__}")
    register_reducer(cls, lambda instance: (deserializer, (serializer(instance),)))


def register_reducer(cls: type, reducer: Callable[[Any], Any]) -> None:
    """Pickle instances of exactly ``cls`` as ``reducer(instance)`` says, which is as ``__reduce__``. Raises:
    TypeError."""
    if not isinstance(cls, type):
        raise TypeError(f"serializers are registered for classes, not for {cls!r}")
    _custom[cls] = reducer


def deregister_serializer(cls: type) -> None:
    """Forget a registered serializer; unknown classes are ignored."""
    _custom.pop(cls, None)


def has_serializer(cls: type) -> bool:
    """Whether one is registered for exactly ``cls``."""
    return cls in _custom


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        _local_modules.notice(obj)
        kind = type(obj)
        if kind is ObjectRef:
            return _ref_pickling.reduce(obj)
        custom = _custom.get(kind)
        if custom is not None:
            return custom(obj)
        if kind.__module__ == "pyarrow.lib" and (reduced := reduce_slice(obj)) is not None:
            return reduced
        return super().reducer_override(obj)


class _Apart:
    """Bytes that are pickled out of band: so they are copied once into the object store and once out of it."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return make_bytes, (pickle.PickleBuffer(self.data),)


#: The pickle of any bytes that are the only buffer.
_BYTES_APART = pickle.dumps(_Apart(b""), 5, buffer_callback=lambda _: False)


class Serialized:
    """A pickled value: the pickle, its out-of-band buffers, and the references inside."""

    __slots__ = ("buffers", "contained", "pickled")

    def __init__(self, pickled: bytes, buffers: list[memoryview], contained: list[ObjectRef[Any]]) -> None:
        self.pickled = pickled
        self.buffers = buffers
        self.contained = contained

    @property
    def size(self) -> int:
        """Bytes of the packed form; of the plain pickle when there are no buffers."""
        return self.packed_size if self.buffers else len(self.pickled)

    def inline(self) -> tuple[int, bytes]:
        """As it travels within a message: its kind and payload."""
        if not self.buffers:
            return INLINE, self.pickled
        if self.pickled is _BYTES_APART:
            value: bytes = self.buffers[0].obj  # type: ignore[assignment]
            return BYTES, value
        return PACKED, self.packed()

    def write_packed(self, into: memoryview) -> None:
        """Write the packed form at the start of ``into``."""
        at = write_head(into, self.pickled, [buffer.nbytes for buffer in self.buffers])
        for buffer in self.buffers:
            at = aligned(at)
            _copy(into[at : at + buffer.nbytes], buffer)
            at += buffer.nbytes

    def packed(self) -> bytes:
        data = bytearray(self.packed_size)
        self.write_packed(memoryview(data))
        return bytes(data)

    @property
    def packed_size(self) -> int:
        at = head_size(self.pickled, len(self.buffers))
        for buffer in self.buffers:
            at = aligned(at) + buffer.nbytes
        return at


def aligned(at: int) -> int:
    """Where a buffer may begin, from there on."""
    return -(-at // ALIGNMENT) * ALIGNMENT


def head_size(pickled: bytes, buffers: int) -> int:
    """Bytes of a packed value before its buffers."""
    return _HEAD.size + 8 * buffers + len(pickled)


def write_head(into: memoryview, pickled: bytes, lengths: list[int]) -> int:
    """Write what stands before the buffers, which have so many bytes; returns where that ends."""
    head = _HEAD.pack(len(pickled), len(lengths)) + struct.pack(f"<{len(lengths)}Q", *lengths) + pickled
    into[: len(head)] = head
    return len(head)


#: Below this a slice assignment is quicker; above it, releasing the interpreter lock during the copy matters.
_FOREIGN_COPY_BYTES = 1 << 20


def _copy(target: memoryview, source: memoryview) -> None:
    if source.nbytes < _FOREIGN_COPY_BYTES:
        target[:] = source
        return
    # ctypes' memmove runs without the interpreter lock; the addresses are those of live exporters.
    to = ctypes.addressof(ctypes.c_char.from_buffer(target))
    ctypes.memmove(to, address_of(source), source.nbytes)


def _is_of_numbers(value: Any, kind: type) -> bool:
    """An array with nothing of the user's inside: without a pickler that looks at each of its parts, which are four,
    it takes a tenth of the time."""
    return (
        kind.__name__ == "ndarray" and kind.__module__ == "numpy" and kind not in _custom and not value.dtype.hasobject
    )


def serialize(value: Any, what: str = "the value", *, out_of_band: bool = True) -> Serialized:
    """``out_of_band=False`` puts large buffers into the pickle too.

    Raises: TypeError naming ``what``, the object, and the path to the part that cannot be pickled; ValueError for a
    reference of an earlier session."""
    kind = type(value)
    if kind in PLAIN:
        if kind is bytes and out_of_band:
            return Serialized(_BYTES_APART, [memoryview(value)], [])
        return Serialized(pickle.dumps(value, 5), [], [])
    buffers: list[memoryview] = []
    contained: list[ObjectRef[Any]] = []

    def keep_out_of_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            buffers.append(buffer.raw())
        except BufferError:
            return True  # not contiguous: pickled in band
        return False

    outer, collected.pickled = collected.pickled, contained
    try:
        callback = keep_out_of_band if out_of_band else None
        if _is_of_numbers(value, kind):
            return Serialized(pickle.dumps(value, 5, buffer_callback=callback), buffers, contained)
        file = io.BytesIO()
        _Pickler(file, protocol=5, buffer_callback=callback).dump(value)
    except (RecursionError, EarlierSessionError):
        raise
    except Exception as error:
        failures = find_unserializable(value)
        if not failures:
            raise  # it can be pickled: this came from elsewhere, as out of a handler of a signal
        raise _explain(value, what, error, failures) from error
    finally:
        collected.pickled = outer
    return Serialized(file.getvalue(), buffers, contained)


def dumps(value: Any) -> bytes:
    """One pickle, with the registered serializers; references inside are pinned for as long as the job runs.

    Raises: what pickling raises.
    """
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return file.getvalue()


def pickle_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, list[bytes] | None] | None:
    """Their pickle and its buffers for a message, when they are plain values that fit into one; else None.

    A buffer of a message arrives as bytes, and is an argument as it is.
    """
    apart_bytes = total = 0
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind = type(value)
        if kind is bytes or kind is str:
            size = len(value)
            total += size
            if size > APART_BYTES and kind is bytes:
                apart_bytes += size
        elif kind not in PLAIN:
            return None
    if total > MAX_INLINE_BYTES:
        return None
    if not apart_bytes:
        pickled = pickle.dumps((args, kwargs), 5)
        return (pickled, None) if len(pickled) <= MAX_INLINE_BYTES else None
    buffers: list[bytes] = []

    def apart(value: Any) -> Any:
        if type(value) is not bytes or len(value) <= APART_BYTES:
            return value
        buffers.append(value)
        return pickle.PickleBuffer(value)

    args = tuple(map(apart, args))
    kwargs = {name: apart(value) for name, value in kwargs.items()}
    pickled = pickle.dumps((args, kwargs), 5, buffer_callback=_out_of_band)
    return (pickled, buffers) if len(pickled) + apart_bytes <= MAX_INLINE_BYTES else None


def _out_of_band(_: pickle.PickleBuffer) -> bool:
    return False


def serialize_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Serialized:
    """``(args, kwargs)``. Out of the store buffers come as views, and bytes are made of them.

    Raises: TypeError as ``serialize``."""
    aparts: dict[int, _Apart] = {}

    def apart(value: Any) -> Any:
        if type(value) is not bytes or len(value) <= APART_BYTES:
            return value
        return aparts.setdefault(id(value), _Apart(value))  # one and the same stays one

    plain = PLAIN.issuperset(map(type, args)) and PLAIN.issuperset(map(type, kwargs.values()))
    args, kwargs = tuple(map(apart, args)), {name: apart(value) for name, value in kwargs.items()}
    if not plain:
        return serialize((args, kwargs), "the arguments")
    pickled = pickle.dumps((args, kwargs), 5, buffer_callback=_out_of_band)
    return Serialized(pickled, [memoryview(each.data) for each in aparts.values()], [])


def unpack(data: memoryview | bytes) -> tuple[memoryview, list[memoryview]]:
    """The pickle and the buffers of a packed value, as views of ``data``."""
    view = memoryview(data)
    length, count = _HEAD.unpack_from(view)
    lengths = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    at = _HEAD.size + 8 * count
    pickled = view[at : at + length]
    at += length
    buffers = []
    for n in lengths:
        at = aligned(at)
        buffers.append(view[at : at + n])
        at += n
    return pickled, buffers


def load_inline(kind: int, payload: bytes) -> Any:
    """The value of what came within a message: the counterpart of ``Serialized.inline``."""
    if kind == BYTES:
        return payload
    return loads_packed(payload) if kind == PACKED else loads(payload)


def loads_packed(data: memoryview | bytes) -> Any:
    pickled, buffers = unpack(data)
    return loads(pickled, buffers=buffers)


def dumps_function(function: Any) -> tuple[bytes, list[ObjectRef[Any]]]:
    """A function or class with everything it needs. Raises: TypeError naming what cannot be pickled."""
    what = "the actor class" if isinstance(function, type) else "the function"
    serialized = serialize(function, what, out_of_band=False)
    return serialized.pickled, serialized.contained


# -- what cannot be pickled, or is large, and where it is ---------------------------------------------------


def _explain(value: Any, what: str, error: Exception, failures: list[tuple[str, Any]]) -> TypeError:
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    lines = [f"Could not serialize {what} {name}: {type(error).__name__}: {error}"]
    for path, culprit in failures:
        lines.append(f"  {path} is {_short(culprit)}, which cannot be pickled")
    lines.append(
        "Create it inside the task or actor instead of sending it, or register how to send it with "
        "shoal.util.register_serializer(). shoal.util.inspect_serializability(value) shows more."
    )
    return TypeError("\n".join(lines))


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # a broken __repr__ must not hide the error that is being explained
        text = object.__repr__(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _picklable(value: Any) -> bool:
    outer, collected.pickled = collected.pickled, []
    try:
        _Pickler(io.BytesIO(), protocol=5).dump(value)
    except Exception:  # any failure of any user class means the same here: not picklable
        return False
    finally:
        collected.pickled = outer
    return True


def find_unserializable(value: Any, *, most: int = 3, depth: int = 6) -> list[tuple[str, Any]]:
    """Paths to the innermost parts that cannot be pickled, e.g. ``("value['lock']", <lock>)``; at most ``most``."""
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()

    def descend(part: Any, path: str, left: int) -> None:
        if len(found) >= most or id(part) in seen or _picklable(part):
            return
        seen.add(id(part))
        before = len(found)
        if left:
            for step, child in _children(part):
                descend(child, path + step, left - 1)
        if len(found) == before:
            found.append((path, part))

    descend(value, getattr(value, "__name__", None) or "value", depth)
    return found


def largest_captures(function: Any, least: int, *, most: int = 3, depth: int = 4) -> list[tuple[str, int]]:
    """What makes a function or class large: names of variables that it captures, and the bytes of their pickles, the
    largest first; those of at least ``least`` bytes, at most ``most``. Each is pickled once more for that."""
    found: list[tuple[str, int]] = []
    seen: set[int] = {id(function)}

    def weigh(part: Any, path: str, left: int) -> None:
        for step, child in _children(part):
            if id(child) in seen:
                continue
            seen.add(id(child))
            size = _pickled_bytes(child)
            if size < least:
                continue
            before = len(found)
            if left and (isinstance(child, type) or hasattr(child, "__code__")):
                weigh(child, path + step, left - 1)
            if len(found) == before:
                found.append(((path + step).removeprefix(" -> "), size))

    weigh(function, "", depth)
    return sorted(found, key=lambda capture: -capture[1])[:most]


class _Count:
    """A file that only counts."""

    size = 0

    def write(self, data: Any) -> None:
        self.size += memoryview(data).nbytes


def _pickled_bytes(value: Any) -> int:
    outer, collected.pickled = collected.pickled, []
    count = _Count()
    try:
        _Pickler(count, protocol=5).dump(value)
    except Exception:  # as above; its whole has been pickled, perhaps without this part
        return 0
    finally:
        collected.pickled = outer
    return count.size


def _names(code: CodeType) -> Iterable[str]:
    """What the code looks up by name, that of functions inside of it too."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)


def _children(part: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(part, dict):
        for key, child in list(part.items()):
            yield f"[{key!r}]", child
    elif isinstance(part, (list, tuple, set, frozenset)):
        for index, child in enumerate(part):
            yield f"[{index}]", child
    elif callable(part) and hasattr(part, "__code__"):
        closure = getattr(part, "__closure__", None) or ()
        for name, cell in zip(part.__code__.co_freevars, closure, strict=False):
            try:
                yield f" -> closure variable {name!r}", cell.cell_contents
            except ValueError:
                continue  # an empty cell
        for name in _names(part.__code__):
            if name in part.__globals__:
                yield f" -> global {name!r}", part.__globals__[name]
        defaults = part.__defaults__ or ()
        last = part.__code__.co_argcount
        names = part.__code__.co_varnames[last - len(defaults) : last]
        for name, child in (*zip(names, defaults, strict=True), *(part.__kwdefaults__ or {}).items()):
            yield f" -> default of {name!r}", child
    elif isinstance(part, type):
        for name, child in list(vars(part).items()):
            if not name.startswith("__") or callable(child):
                yield f".{name}", child
    elif hasattr(part, "__dict__"):
        for name, child in list(vars(part).items()):
            yield f".{name}", child
