"""A ring of messages in shared memory: one process writes, several read, and each of them reads every message.

The memory is a memfd. In its head stand how many messages have been written, how many each reader has read, and where
each slot lies; the slots follow. A message that is larger than its slot moves that slot to new memory at the end, which
the readers map when they see it. Each number is written by one process only, so nothing needs a lock; the payload is
written before the count, and x86 keeps that order (elsewhere the interpreter's own lock, released in between, does).

Who waits looks for a moment, as an answer takes some tens of microseconds and waking a thread that sleeps as long
again, and then sleeps in a futex on the number that will change. A futex and not an eventfd or a pipe: it needs no
descriptors of its own, and nothing is called where nobody sleeps. Two actors one after the other on two cores: always
sleeping 3,600 executions/s, this way 10,000 to 16,000; on cores that many others use, 610 and 770, and 150 without the
sleeps after a look in vain.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
import threading
import time
from collections.abc import Callable

from shoal._values.serialization import Serialized

_PAGE = mmap.PAGESIZE
_WORD = 4
_MASK = 0xFFFFFFFF
#: Words of the head. Those that different processes write are 64 bytes apart.
_CLOSED, _WRITTEN, _READ, _STRIDE = 0, 16, 32, 16
#: Behind the count of the writer and those of the readers: whether that process sleeps.
_SLEEPS = 1
#: Of a slot: where its memory begins, how much that is, bytes of the message in it, and the message's kind.
_SLOT = struct.Struct("<QQQI4x")

#: Who waits looks so long without sleeping, in seconds, and sleeps at once the next so many times when that was too
#: short, twice as often when it was the last time, too: where more wants to run than there are processors, letting
#: others run takes milliseconds.
BRIEF_S = 0.0002
SLEEPS_AFTER_VAIN = 16
MOST_DOUBLINGS = 6
#: Who sleeps looks after so many seconds whether the ring was closed, or the wait is to end: being closed wakes
#: everybody, but for one who begins to sleep in that moment.
LOOK_S = 0.05

_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98}
_EVERYBODY = 0x7FFFFFFF


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = [
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_uint32,
    ctypes.POINTER(_Timespec),
    ctypes.c_void_p,
    ctypes.c_uint32,
]
_syscall.restype = ctypes.c_long
_futex = _FUTEX_NUMBERS.get(platform.machine(), 0)


class RingClosed(Exception):
    """Nothing more goes through this ring."""


class RingTimeout(Exception):
    """Nothing has come, or no room was made, in time."""


def never() -> bool:
    """As ``ended``: of a wait that only the ring's end ends."""
    return False


def create(readers: int, slots: int, slot_bytes: int) -> int:
    """A descriptor of new memory for a ring; pages of it that are not written take no room.

    Raises: OSError; NotImplementedError where the number of the futex call is not known.
    """
    if not _futex:
        raise NotImplementedError(f"compiled graphs need futexes, and this is {platform.machine()}")
    table = _table_at(readers)
    begin = _pages(table + slots * _SLOT.size)
    room = _pages(slot_bytes)
    fd = os.memfd_create("shoal-ring", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, begin + slots * room)
        head = b"".join(_SLOT.pack(begin + slot * room, room, 0, 0) for slot in range(slots))
        os.pwrite(fd, struct.pack("<III", 0, readers, slots), 0)
        os.pwrite(fd, head, table)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Ring:
    """What a writer and a reader have in common: one process's view of the memory."""

    def __init__(self, fd: int) -> None:
        """Closes ``fd`` at its end. Raises: OSError."""
        self._fd = fd
        self._head = mmap.mmap(fd, _PAGE)
        _, self._readers, self._slots = struct.unpack_from("<III", self._head)
        self._table = _table_at(self._readers)
        needed = _pages(self._table + self._slots * _SLOT.size)
        if needed > _PAGE:
            self._head = mmap.mmap(fd, needed)
        self._sleeps_left = 0
        #: So many looks in vain, one after the other.
        self._vain = 0
        self._barrier = threading.Lock()
        self._words = memoryview(self._head).cast("I")
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._head))
        self._read_words = range(_READ, _READ + self._readers * _STRIDE, _STRIDE)
        self._map_all()

    def __del__(self) -> None:
        os.close(self._fd)

    def _map_all(self) -> None:
        self._data = memoryview(mmap.mmap(self._fd, 0))

    @property
    def closed(self) -> bool:
        return bool(self._words[_CLOSED])

    def close(self) -> None:
        """For all who use it. Does not wait for anything."""
        self._words[_CLOSED] = 1
        self._wake(_WRITTEN)
        for word in self._read_words:
            self._wake(word)

    def _wake(self, word: int) -> None:
        _syscall(_futex, self._address + word * _WORD, _FUTEX_WAKE, _EVERYBODY, None, None, 0)

    def _await_change(self, word: int, seen: int, own: int, deadline: float | None, ended: Callable[[], bool]) -> None:
        """Until ``word`` is no longer ``seen``; ``own``: the word of this process's count.

        Raises: RingClosed, also when ``ended()``; RingTimeout.
        """
        words = self._words
        if self._sleeps_left:
            self._sleeps_left -= 1
        else:
            look, others, until = time.monotonic, os.sched_yield, time.monotonic() + BRIEF_S
            while words[word] == seen and look() < until:
                others()
            if look() < until:
                self._vain = 0
            else:
                self._sleeps_left = SLEEPS_AFTER_VAIN << self._vain
                self._vain = min(self._vain + 1, MOST_DOUBLINGS)
            if words[word] != seen:
                return
        words[own + _SLEEPS] = 1  # the kernel looks at the word behind a barrier of its own
        try:
            while words[word] == seen:
                if words[_CLOSED] or ended():
                    raise RingClosed
                left = LOOK_S if deadline is None else min(LOOK_S, deadline - time.monotonic())
                if left <= 0:
                    raise RingTimeout
                timeout = _Timespec(0, int(left * 1e9))
                result = _syscall(_futex, self._address + word * _WORD, _FUTEX_WAIT, seen, timeout, None, 0)
                if result < 0 and (code := ctypes.get_errno()) not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
                    raise OSError(code, os.strerror(code))
        finally:
            words[own + _SLEEPS] = 0


class RingWriter(Ring):
    """The only one. ``await_room``, ``reserve`` and ``write`` make a message."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        slots = [_SLOT.unpack_from(self._head, self._table + slot * _SLOT.size) for slot in range(self._slots)]
        self._begins = [begin for begin, _, _, _ in slots]
        self._rooms: list[int] = [room for _, room, _, _ in slots]
        self._next = 0
        #: So many messages.
        self.written = 0
        #: Each reader has read at least so many.
        self._least_read = 0

    def await_room(self, deadline: float | None, ended: Callable[[], bool] = never) -> None:
        """Until every reader has read what the next message takes the place of.

        Raises: RingClosed, RingTimeout.
        """
        if self._words[_CLOSED]:
            raise RingClosed
        while self.written - self._least_read >= self._slots:
            word = self._look_who_is_last()
            if self.written - self._least_read >= self._slots:
                self._await_change(word, self._least_read & _MASK, _WRITTEN, deadline, ended)

    def read_by_all(self) -> int:
        """So many messages."""
        self._look_who_is_last()
        return self._least_read

    def _look_who_is_last(self) -> int:
        """The word of its count."""
        last: tuple[int, int] = max((self.written - self._words[word] & _MASK, word) for word in self._read_words)
        self._least_read = self.written - last[0]
        return last[1]

    @property
    def room(self) -> int:
        """Bytes that the next message may have as it is."""
        return self._rooms[self._next]

    def reserve(self, size: int) -> None:
        """See to it that the next message may have ``size`` bytes. Raises: OSError."""
        room = self._rooms[self._next]
        if size <= room:
            return
        begin = os.fstat(self._fd).st_size
        room = _pages(max(size, 2 * room))
        os.posix_fallocate(self._fd, begin, room)  # an error here, instead of the process's end when it writes there
        self._map_all()
        self._begins[self._next], self._rooms[self._next] = begin, room

    def write(self, kind: int, payload: bytes | Serialized, size: int) -> None:
        """There is room, and ``reserve`` was told the size."""
        slot, words = self._next, self._words
        begin = self._begins[slot]
        if type(payload) is bytes:
            self._data[begin : begin + size] = payload
        else:
            payload.write_packed(self._data[begin : begin + size])  # type: ignore[union-attr]
        _SLOT.pack_into(self._head, self._table + slot * _SLOT.size, begin, self._rooms[slot], size, kind)
        self._next = slot + 1 if slot + 1 < self._slots else 0
        self.written += 1
        words[_WRITTEN] = self.written & _MASK
        self._barrier.acquire()  # else a processor could look who sleeps before it writes
        self._barrier.release()
        for word in self._read_words:
            if words[word + _SLEEPS]:
                self._wake(_WRITTEN)
                return


class RingReader(Ring):
    """One of the readers. ``await_message``, ``message`` and ``release`` read one."""

    def __init__(self, fd: int, number: int) -> None:
        super().__init__(fd)
        self._word = _READ + number * _STRIDE
        #: As it stands there.
        self._read = 0

    def is_ready(self) -> bool:
        return self._words[_WRITTEN] != self._read

    def await_message(self, deadline: float | None, ended: Callable[[], bool] = never) -> None:
        """Messages that were written before the ring was closed are still read. Raises: RingClosed, RingTimeout."""
        if self._words[_WRITTEN] == self._read:
            self._await_change(_WRITTEN, self._read, self._word, deadline, ended)

    def message(self) -> tuple[int, memoryview]:
        """There is one: its kind and payload, which is there until ``release``."""
        begin, _, size, kind = _SLOT.unpack_from(self._head, self._table + self._read % self._slots * _SLOT.size)
        if begin + size > self._data.nbytes:
            self._map_all()
        return kind, self._data[begin : begin + size]

    def release(self) -> None:
        words = self._words
        self._read = words[self._word] = self._read + 1 & _MASK
        self._barrier.acquire()  # as in ``write``
        self._barrier.release()
        if words[_WRITTEN + _SLEEPS]:
            self._wake(self._word)


def _table_at(readers: int) -> int:
    return (_READ + readers * _STRIDE) * _WORD


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
