"""The address of a call by its content: by what the function does, and what it is called with.

A function is its code, not its name or place: its bytecode, defaults, what it closes over, and the globals that it
names, the functions and classes among them in the same way, down to what is installed (the standard library,
site-packages), of which the name counts and the version of its package. A module of one's own that it names or imports
is its whole code, and that of all such modules which are imported there: which of its attributes are used may be
decided late. A value is what pickling would take apart, independent of the order of sets and of what happens to be
shared.

So an edit of a helper changes the addresses of what uses it. What is not seen: modules and globals that are looked up
by a string (``importlib.import_module``, ``globals()``), files, the environment, and the world.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import pickle
import struct
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from shoal._core.object_ref import ObjectRef
from shoal._values import own_modules
from shoal._values.own_modules import is_installed

#: A method of whoever wants to say by itself what counts of it: returns that.
HOOK = "__shoal_content__"

#: What does not count of a class: where it is, what Python writes there by itself.
_NOT_OF_A_CLASS = frozenset(
    "__dict__ __weakref__ __module__ __doc__ __firstlineno__ __static_attributes__ __annotations__ __annotate__ "
    "__annotate_func__ __annotations_cache__ __dataclass_fields__ __dataclass_params__ __match_args__ "
    "__abstractmethods__ _abc_impl __orig_bases__ __parameters__ __type_params__".split()
)


class Content(Enum):
    """See ``CONTENT``."""

    CONTENT = "content"

    def __repr__(self) -> str:
        return "shoal.CONTENT"


#: The key of a call that is known by its content.
CONTENT = Content.CONTENT


def address(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], environment: str) -> str:
    """64 hexadecimal digits. Two calls have the same one only if they do the same. ``environment``: what else counts.

    Raises: TypeError for what has no content, such as a reference inside of an argument or a lock: it says which.
    """
    content = _Content()
    content.add("call", environment.encode(), sys.version_info[:2])
    content.value(function)
    content.value(args)
    for name in sorted(kwargs):
        content.add("keyword", name.encode())
        content.value(kwargs[name])
    return content.digest().hex()


class _Content:
    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        #: What is being taken apart, by its id: how deep.
        self._above: dict[int, int] = {}
        #: Names of the modules that have been counted whole.
        self._imported: set[str] = set()

    def digest(self) -> bytes:
        return self._sum.digest()

    def add(self, kind: str, *parts: Any) -> None:
        """Parts are bytes, or have a ``repr`` that tells them apart."""
        for part in (kind, *parts):
            data = part if isinstance(part, bytes) else repr(part).encode()
            self._sum.update(struct.pack("<Q", len(data)))
            self._sum.update(data)

    def value(self, value: Any) -> None:
        kind = type(value)
        if value is None or value is Ellipsis or kind in (bool, int, float, complex):
            self.add(kind.__name__, value)
        elif kind is str:
            self.add("str", value.encode("utf-8", "surrogatepass"))
        elif kind is bytes or kind is bytearray:
            self.add(kind.__name__, bytes(value))
        elif kind is types.ModuleType:
            self._module(value, ())
        elif id(value) in self._above:
            self.add("above", self._above[id(value)])
        else:
            self._above[id(value)] = len(self._above)
            try:
                self._take_apart(value, kind)
            finally:
                del self._above[id(value)]

    def _take_apart(self, value: Any, kind: type) -> None:
        if kind is tuple or kind is list:
            self.add(kind.__name__, len(value))
            for each in value:
                self.value(each)
        elif kind is dict:
            self.add("dict", len(value))
            for key, each in value.items():
                self.value(key)
                self.value(each)
        elif kind is set or kind is frozenset:
            self.add(kind.__name__, *sorted(self._digest_of(each) for each in value))
        elif kind is types.FunctionType:
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif kind is types.CodeType:
            self._code(value)
        elif kind is pickle.PickleBuffer:
            self.add("buffer", bytes(value.raw()))
        elif kind in (staticmethod, classmethod):
            self.add(kind.__name__)
            self.value(value.__func__)
        elif kind is property:
            self.add("property")
            for part in (value.fget, value.fset, value.fdel):
                self.value(part)
        elif kind is ObjectRef:
            raise TypeError(
                "A reference inside of an argument has no content: hand it on as an argument of its own, or give the "
                "call a key"
            )
        elif (hook := getattr(kind, HOOK, None)) is not None:
            self.add("hook", kind.__qualname__)
            self.value(hook(value))
        else:
            self._reduced(value, kind)

    def _digest_of(self, value: Any) -> bytes:
        inner = _Content()
        inner._above = dict(self._above)
        inner._imported = set(self._imported)
        inner.value(value)
        return inner.digest()

    def _reduced(self, value: Any, kind: type) -> None:
        """As pickling takes it apart."""
        reduce = copyreg.dispatch_table.get(kind)
        try:
            reduced = value.__reduce_ex__(5) if reduce is None else reduce(value)
        except Exception as error:  # of any class: it cannot be pickled
            raise TypeError(
                f"{kind.__module__}.{kind.__qualname__} has no content: {error}. Give the call a key, or the class a "
                f"method {HOOK}() that returns what counts"
            ) from error
        if isinstance(reduced, str):
            self.add("name", getattr(value, "__module__", "") or kind.__module__, reduced)
            return
        make, args, *rest = reduced
        self.add("reduced", kind.__qualname__)
        self.value(make)
        self.value(tuple(args))
        for index, part in enumerate(rest[:3]):
            self.add("rest", index)
            self.value(part if index == 0 or part is None else list(part))

    def _class(self, cls: type) -> None:
        if is_installed(cls.__module__):
            self.add("installed class", cls.__module__, cls.__qualname__, _version(cls.__module__))
            return
        self.add("class", cls.__qualname__)
        self.value(cls.__bases__)
        for name, member in sorted(vars(cls).items()):
            if name in _NOT_OF_A_CLASS or isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
                continue
            self.add("member", name)
            self.value(member)

    def _function(self, function: types.FunctionType) -> None:
        if is_installed(function.__module__ or "__main__"):
            self.add("installed function", function.__module__, function.__qualname__, _version(function.__module__))
            return
        self.add("function")
        self._code(function.__code__)
        self.value(function.__defaults__)
        self.value(function.__kwdefaults__)
        names = sorted(set(_names(function.__code__)))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self.add("closure", name)
            try:
                found = cell.cell_contents
            except ValueError:
                self.add("empty")
            else:
                self._found(found, names)
        for name in names:
            if name in function.__globals__:
                self.add("global", name)
                self._found(function.__globals__[name], names)
        self._imports(own_modules.imported(function.__code__, function.__globals__.get("__package__")))
        self._attributes(vars(function))

    def _found(self, value: Any, names: Iterable[str]) -> None:
        """What a function that uses these names has."""
        if type(value) is types.ModuleType:
            self._module(value, names)
        else:
            self.value(value)

    def _module(self, module: types.ModuleType, names: Iterable[str]) -> None:
        """``names``: of attributes that are used: those count by what they are, too, with what is in memory only."""
        self.add("module", module.__name__, _version(module.__name__))
        if is_installed(module.__name__):
            return
        if sys.modules.get(module.__name__) is module:
            self._imports([module.__name__])
            self._attributes({name: vars(module)[name] for name in names if name in vars(module)}, module, names)
        elif module.__name__ not in self._imported:  # it has travelled by value: there is no more of it
            self._imported.add(module.__name__)
            self._attributes({name: each for name, each in vars(module).items() if not name.startswith("__")})

    def _attributes(
        self, attributes: Mapping[str, Any], module: types.ModuleType | None = None, names: Iterable[str] = ()
    ) -> None:
        """``module``: what has them; a module inside of that one is asked for ``names``, too."""
        for name, each in sorted(attributes.items()):
            self.add("attribute", name)
            if type(each) is types.ModuleType and module and each.__name__ == f"{module.__name__}.{name}":
                self._module(each, names)
            else:
                self.value(each)

    def _imports(self, names: Iterable[str]) -> None:
        for module in own_modules.reachable(names):
            if module.name not in self._imported:
                self._imported.add(module.name)
                self.add("imports", module.name, module.version, _digest_of_code(module.code), module.data)

    def _code(self, code: types.CodeType) -> None:
        """Without its lines: moving it changes nothing."""
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self.add("code", code.co_code, code.co_exceptiontable, counts, code.co_names, code.co_varnames)
        self.add("variables", code.co_freevars, code.co_cellvars)
        self.value(code.co_consts)


@functools.lru_cache(own_modules.MAX_MODULES)
def _digest_of_code(code: types.CodeType | None) -> bytes:
    content = _Content()
    if code is not None:
        content._code(code)
    return content.digest()


def _names(code: types.CodeType) -> Iterator[str]:
    """What it looks up by name, that of functions inside of it too."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)


def _version(module: str | None) -> str:
    """Of its package, if that says so."""
    top = sys.modules.get((module or "").partition(".")[0])
    return str(getattr(top, "__version__", ""))
