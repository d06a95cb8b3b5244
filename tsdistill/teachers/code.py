"""The code that an object runs: functions with what they look at, classes with their methods."""

from __future__ import annotations

import builtins
import dis
import enum
import hashlib
import sys
import types
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

Origin = Literal["core", "installed", "own"]

CORE = ("torch", "torchgen", "functorch", "numpy", "scipy", "pandas", "sklearn", "statsmodels")
"""Packages whose code counts by name only; what they compute changes too seldom to compute everything anew."""

_PACKAGE = str(Path(__file__).resolve().parents[1]) + "/"
_STANDARD = str(Path(types.__file__).resolve().parent) + "/"
_FUNCTIONS = (types.FunctionType, staticmethod, classmethod, property)


class CodeParts:
    """The part of a walk that goes through code; the rest of it is `inventory`'s."""

    def __init__(self) -> None:
        self._globals: set[tuple[int, str]] = set()

    def put(self, path: str, text: str) -> None:
        """Put down the text of a part."""
        raise NotImplementedError

    def add(self, path: str, value: Any) -> None:
        """Put down a value and everything below it."""
        raise NotImplementedError

    def add_function(self, path: str, value: types.FunctionType) -> None:
        """A function: its code, defaults and closure, and the globals that the code looks at."""
        original = getattr(value, "_torchdynamo_orig_callable", None)
        if original is not None:  # what torch.compile made of a function
            self.add(f"{path}.__wrapped__", original)
            return
        code = value.__code__
        source = origin(code.co_filename)
        self.put(path, f"{value.__module__}.{value.__qualname__}")
        for position, cell in enumerate(value.__closure__ or ()):
            self.add(f"{path}.closure.{code.co_freevars[position]}", cell)
        if source == "core":
            return
        if source == "installed":
            self.put(f"{path}.file", _file_digest(code.co_filename))
            return
        self.add(f"{path}.code", code)
        self.add(f"{path}.defaults", value.__defaults__)
        self.add(f"{path}.keywords", value.__kwdefaults__)
        self.add(f"{path}.attributes", dict(sorted(vars(value).items())))
        for name in sorted(_global_names(code)):
            self._add_global(f"{path}:{name}", value.__globals__, name, code)
        package = value.__globals__.get("__package__") or ""
        for name in sorted(_imports(code)):
            for full in (name, f"{package}.{name}"):
                if isinstance(module := sys.modules.get(full), types.ModuleType):
                    self._add_names(f"{path}:{full}", module, code)

    def _add_global(self, path: str, names: dict[str, Any], name: str, code: types.CodeType) -> None:
        if name not in names:
            self.put(path, "builtin" if hasattr(builtins, name) else "missing")
            return
        value = names[name]
        if isinstance(value, types.ModuleType):
            self._add_names(path, value, code)
        elif (id(names), name) not in self._globals:
            self._globals.add((id(names), name))
            self.add(path, value)

    def _add_names(self, path: str, module: types.ModuleType, code: types.CodeType) -> None:
        """Those names of a module that some code mentions; a library counts by its own name."""
        self.put(path, f"module {module.__name__}")
        if module_origin(module.__name__) == "own":
            for name in sorted(_mentioned(code) & vars(module).keys()):
                if (id(vars(module)), name) not in self._globals:
                    self._globals.add((id(vars(module)), name))
                    if isinstance(inner := vars(module)[name], types.ModuleType):
                        self._add_names(f"{path}.{name}", inner, code)
                    else:
                        self.add(f"{path}.{name}", inner)

    def add_code(self, path: str, value: types.CodeType) -> None:
        """Instructions, names and constants, the code of inner functions among them; not where it stands."""
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        counts = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags)
        table = hashlib.sha256(value.co_exceptiontable).hexdigest()
        self.put(path, hashlib.sha256(f"{value.co_code.hex()} {names} {counts} {table}".encode()).hexdigest())
        for position, constant in enumerate(value.co_consts):
            self.add(f"{path}.constant{position}", constant)

    def add_class(self, path: str, value: type) -> None:
        """A class: its name, its bases, and its members; of a library's class those that were put there by others."""
        self.put(path, f"{value.__module__}.{value.__qualname__}")
        source = class_origin(value)
        if source == "installed":
            self.put(f"{path}.file", _file_digest(getattr(sys.modules.get(value.__module__), "__file__", "") or ""))
        for base in value.__bases__:
            if base is not object:
                self.add(f"{path}.base.{base.__qualname__}", base)
        if type(value) is not type and class_origin(type(value)) == "own":
            self.add(f"{path}.metaclass", type(value))
        if issubclass(value, enum.Enum):
            members = {member.name: member.value for member in value}
            self.add(f"{path}.members", members if source == "own" else None)
        for name, member in sorted(vars(value).items()):
            if (source == "own" and _counts(value, name, member)) or (source != "own" and _was_put_there(member)):
                self.add(f"{path}.{name}", member)

    def add_method(self, path: str, value: types.MethodType) -> None:
        """A bound method: the function and what it is bound to."""
        self.put(path, "method")
        self.add(f"{path}.function", value.__func__)
        self.add(f"{path}.self", value.__self__)

    def add_module(self, path: str, value: types.ModuleType) -> None:
        """A module that is held somewhere: by name, and one of the user's by its file."""
        text = f"module {value.__name__}"
        file = getattr(value, "__file__", None)
        self.put(path, text if module_origin(value.__name__) == "core" or not file else f"{text} {_file_digest(file)}")

    def add_cell(self, path: str, value: types.CellType) -> None:
        """A closure's variable."""
        try:
            contents = value.cell_contents
        except ValueError:
            self.put(path, "empty")
        else:
            self.add(f"{path}.contents", contents)

    def add_wrapper(self, path: str, value: Any) -> None:
        """A static method or a class method."""
        self.put(path, type(value).__name__)
        self.add(f"{path}.function", value.__func__)

    def add_property(self, path: str, value: property) -> None:
        """A property: its functions."""
        self.put(path, "property")
        self.add(f"{path}.functions", (value.fget, value.fset, value.fdel))


@lru_cache(4096)
def origin(filename: str) -> Origin:
    """Whose code a file holds: that of a library that counts by name, of an installed package, or the user's own."""
    if filename.startswith("<frozen "):
        return "core"
    if filename.startswith("<"):
        return "own"
    path = str(Path(filename).resolve()) if Path(filename).exists() else filename
    if path.startswith(_PACKAGE):
        return "core"
    parts = Path(path).parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts:
            after = parts[len(parts) - parts[::-1].index(folder) :]
            return "core" if after and after[0].removesuffix(".py") in (*CORE, "tsdistill") else "installed"
    return "core" if path.startswith(_STANDARD) else "own"


def module_origin(name: str) -> Origin:
    """Whose a module is."""
    if name.partition(".")[0] in (*CORE, "tsdistill"):
        return "core"
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is not None and name != "__main__":
        return origin(file)
    return (
        "core"
        if name in sys.builtin_module_names or name.partition(".")[0] in sys.stdlib_module_names - {"__main__"}
        else "own"
    )


def class_origin(value: type) -> Origin:
    """Whose a class is."""
    return module_origin(str(value.__module__))


def is_own(value: Any) -> bool:
    """Whether a class or function is the user's own, and not a library's."""
    if isinstance(value, type):
        return class_origin(value) == "own"
    if isinstance(value, types.MethodType):
        return is_own(value.__func__)
    code = getattr(value, "__code__", None)
    return class_origin(type(value)) == "own" if code is None else origin(code.co_filename) == "own"


def _counts(cls: type, name: str, member: Any) -> bool:
    """Whether a member of the user's class may change what it computes."""
    if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType) or name == "_abc_impl":
        return False
    if issubclass(cls, enum.Enum):
        return isinstance(member, _FUNCTIONS) and not name.startswith("__")
    dunder = name.startswith("__") and name.endswith("__")
    return not dunder or isinstance(member, _FUNCTIONS)


def _was_put_there(member: Any) -> bool:
    """Whether a member of a library's class is the user's code."""
    return isinstance(member, types.FunctionType) and origin(member.__code__.co_filename) == "own" and (
        not member.__code__.co_filename.startswith("<")
        or member.__globals__.get("__name__") == "__main__"
    )  # fmt: skip


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _global_names(code: types.CodeType) -> set[str]:
    loads = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    return {step.argval for part in _codes(code) for step in dis.get_instructions(part) if step.opname in loads}


def _imports(code: types.CodeType) -> set[str]:
    return {step.argval for part in _codes(code) for step in dis.get_instructions(part) if step.opname == "IMPORT_NAME"}


def _mentioned(code: types.CodeType) -> set[str]:
    return {name for part in _codes(code) for name in part.co_names}


@lru_cache(256)
def _file_digest(filename: str) -> str:
    """The bytes of a file of source; a file of compiled code counts by the version of its package."""
    path = Path(filename)
    try:
        if path.suffix == ".py":
            return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        pass
    return f"{path.stem}"
