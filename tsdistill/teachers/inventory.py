"""What an object is made of, part by part, as texts that are the same in every process; nothing is ever pickled."""

from __future__ import annotations

import copyreg
import enum
import hashlib
import re
import types
import weakref
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from logging import Logger
from pathlib import PurePath
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tsdistill.models.base import Forecaster
from tsdistill.spec import Spec
from tsdistill.teachers.arrays import ArrayParts
from tsdistill.teachers.code import CodeParts, is_own
from tsdistill.teachers.programs import script_parts, unmangled

UNIMPORTANT = {
    "name_or_path", "_name_or_path", "_commit_hash", "transformers_version", "_compiled_call_impl", "_guards_fn",
}  # fmt: skip
"""What changes no forecast: where a library loaded a model from, by which version, what a program checks first."""

FITTING = {"random_state", "_random_seed", "_feature_subsample_rng", "_random_state", "_rng"}
"""What a regressor of scikit-learn draws from while it is fitted, and never again."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_BACKWARD = re.compile(r"_.*(backward|state_dict).*hook.*|_forward_.*(kwargs|called)|_non_persistent_buffers_set")
_SIMPLE = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
_NAMED = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType,
    types.GetSetDescriptorType, types.MemberDescriptorType, types.ClassMethodDescriptorType,
)  # fmt: skip
_LOCKS = ("lock", "RLock")


@dataclass
class Inventory:
    """The parts of an object: a text for each, by the path that leads to it.

    Args:
        parts: Text by path.
        doubts: Why a part has no text, by path: an object of compiled code that does not say what it holds, a file.
    """

    parts: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """Digest of all parts."""
        lines = [f"{path}={text}" for path, text in sorted(self.parts.items())]
        return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()

    def sentences(self) -> tuple[str, ...]:
        """The doubts as they are shown: "`module.tokenizer` is a pkg.Tokenizer"."""
        return tuple(f"`{_shown(place)}` is {reason}" for place, reason in sorted(self.doubts.items()))

    def changed(self, other: Inventory) -> set[str]:
        """Paths at which two inventories of one object differ."""
        paths = self.parts.keys() | other.parts.keys()
        return {path for path in paths if self.parts.get(path) != other.parts.get(path)}


def inventory(value: Any, *, light: bool = False, left_out: Set[str] = frozenset()) -> Inventory:
    """Everything that a value is made of: classes with the code of their methods, attributes, containers, arrays.

    Code of torch, numpy, the standard library and tsdistill counts by name, that of other installed packages by the
    bytes of its file; all other code by its instructions, constants, defaults, closures and the globals it looks at.

    Args:
        value: Any object.
        light: Take large tensors by their version and not by their bytes, to see whether they were written to.
        left_out: Paths where not to look.
    """
    walk = _Walk(light, left_out)
    try:
        walk.add("", value)
    except RecursionError:
        walk.doubt("", "nested too deeply")
    return walk.inventory


class _Walk(CodeParts, ArrayParts):
    """One walk through an object; what was met before counts by the path that first led to it."""

    kinds: ClassVar[list[tuple[Any, Callable[..., None]]]] = []

    def __init__(self, light: bool, left_out: Set[str]) -> None:
        super().__init__()
        self.inventory = Inventory()
        self._left_out = left_out
        self.light = light
        self._first: dict[int, str] = {}
        self._alive: list[Any] = []  # so that no number is given twice

    def put(self, path: str, text: str) -> None:
        self.inventory.parts[path] = text

    def doubt(self, path: str, reason: str) -> None:
        self.inventory.doubts[path] = reason
        self.put(path, f"unknown {reason}")

    def met(self, path: str, value: Any) -> bool:
        """Whether a value was met before; then this path refers to that one."""
        first = self._first.setdefault(id(value), path)
        self._alive.append(value)
        if first == path:
            return False
        self.put(path, f"the same as {first}")
        return True

    def add(self, path: str, value: Any) -> None:
        """Put down a value and everything below it."""
        if path in self._left_out:
            return
        if (text := _leaf(value)) is not None:
            self.put(path, text)
        elif not self.met(path, value):
            for kind, walk in self.kinds:
                if isinstance(value, kind):
                    walk(self, path, value)
                    return
            self._instance(path, value)

    def _sequence(self, path: str, values: list[Any] | tuple[Any, ...]) -> None:
        name = type(values).__name__
        leaves = [_leaf(entry) for entry in values]
        if all(leaf is not None for leaf in leaves):
            self.put(path, _hashed(f"{name}{leaves}"))
        else:
            self.put(path, f"{name} of {len(leaves)}")
            for position, entry in enumerate(values):
                self.add(f"{path}[{position}]", entry)
        self._rest(path, values, (list, tuple))

    def _set(self, path: str, values: Any) -> None:
        texts = sorted(self.alone(entry, path) for entry in values)
        self.put(path, _hashed(f"{type(values).__name__}{texts}"))

    def alone(self, value: Any, path: str) -> str:
        """A value's text by itself; its doubts are this walk's."""
        own = inventory(value, light=self.light)
        self.inventory.doubts |= {f"{path}{place}": reason for place, reason in own.doubts.items()}
        return own.digest()

    def _mapping(self, path: str, values: Mapping[Any, Any]) -> None:
        # In its own order: whoever goes through a dictionary meets its entries in that order.
        keys = [key for key in values if not (isinstance(key, str) and key in UNIMPORTANT)]
        labels = [_leaf(key) for key in keys]
        self.put(path, _hashed(f"{type(values).__name__}{labels}"))
        for position, (key, label) in enumerate(zip(keys, labels, strict=True)):
            place = f"{path}[{key!r}]" if label is not None and len(label) < 99 else f"{path}[#{position}]"
            if label is None:
                self.add(f"{place}.key", key)
            self.add(place, values[key])
        if (factory := getattr(values, "default_factory", None)) is not None:
            self.add(f"{path}.default_factory", factory)
        self._rest(path, values, (dict, types.MappingProxyType))

    def _rest(self, path: str, value: Any, plain: tuple[type, ...]) -> None:
        """Class and attributes of an object that is also a container."""
        if type(value) not in plain:
            self.add(f"{path}.__class__", type(value))
            self._attributes(path, value)

    def _attributes(self, path: str, value: Any) -> bool:
        """An object's attributes and slots; False if it has neither."""
        slots = [vars(base).get("__slots__", ()) for base in type(value).__mro__]
        names = {name for entry in slots for name in ([entry] if isinstance(entry, str) else entry)}
        attributes = {
            name: getattr(value, name) for name in names - {"__dict__", "__weakref__"} if hasattr(value, name)
        }
        attributes |= getattr(value, "__dict__", {})
        left_out = FITTING if type(value).__module__.startswith("sklearn.") else UNIMPORTANT
        for name in sorted(attributes):
            if name not in left_out:
                self.add(f"{path}.{name}", attributes[name])
        return bool(names) or hasattr(value, "__dict__")

    def _instance(self, path: str, value: Any) -> None:
        """Any other object: by its attributes, or by what it says that it would have to be made again from."""
        cls = type(value)
        if cls.__name__ in _LOCKS and cls.__module__ in ("_thread", "threading"):
            self.put(path, "lock")
            return
        self.put(path, f"{cls.__module__}.{cls.__qualname__}")
        self.add(f"{path}.__class__", cls)
        if callable(getattr(value, "get_tree_stats", None)) and callable(getattr(value, "get_arrays", None)):
            # A search tree of scikit-learn counts how it is used; its data is what it answers from.
            self.add(f"{path}.arrays", [np.asarray(array) for array in value.get_arrays()])
        elif not is_own(cls) and callable(to_dict := getattr(value, "to_dict", None)) and hasattr(cls, "from_dict"):
            fields = to_dict()
            self.add(f"{path}.fields", {key: fields[key] for key in sorted(fields, key=str) if key not in UNIMPORTANT})
        elif (is_own(cls) or not _says_its_state(cls)) and hasattr(value, "__dict__"):
            self._attributes(path, value)
            if not _says_its_state(cls):
                try:
                    object.__reduce_ex__(value, 4)
                except TypeError:  # there is more to it than attributes, as in a file
                    self.doubt(f"{path}.inside", f"inside a {cls.__module__}.{cls.__qualname__}")
        else:
            self._reduced(path, value)

    def _reduced(self, path: str, value: Any) -> None:
        """What an object of compiled code would be made again from, by its own account."""
        try:
            reducer = copyreg.dispatch_table.get(type(value))
            state = reducer(value) if reducer is not None else value.__reduce_ex__(4)
        except Exception:
            if isinstance(value, torch.ScriptObject):
                self._script_object(path, value)
            elif not self._attributes(path, value):
                self.doubt(path, f"a {type(value).__module__}.{type(value).__qualname__}")
            return
        if isinstance(state, str):
            self.put(path, f"{getattr(value, '__module__', '')}.{state}")
            return
        maker, arguments, *rest = state
        self.add(f"{path}.maker", maker)
        self.add(f"{path}.arguments", arguments)
        for name, part in zip(("state", "entries", "items"), rest, strict=False):
            if part is not None:
                self.add(f"{path}.{name}", part if name == "state" else list(part))

    def _script_object(self, path: str, value: Any) -> None:
        try:
            state = value.__getstate__()
        except Exception:
            self.doubt(path, "a compiled object of TorchScript")
        else:
            self.add(f"{path}.state", state)

    def _module(self, path: str, module: nn.Module) -> None:
        """A torch module: class, attributes, weights, submodules and the hooks that run when it is called."""
        self.put(path, "module")
        scripted = isinstance(module, torch.jit.ScriptModule)
        if not scripted and isinstance(original := vars(module).get("_modules", {}).get("_orig_mod"), nn.Module):
            self.add(f"{path}._orig_mod", original)  # of torch.compile
            return
        written = isinstance(module, torch.fx.GraphModule)
        if scripted:
            text = module._c.dump_to_str(True, False, False)  # type: ignore[operator, union-attr]
            self.put(f"{path}.code", _hashed(unmangled(text)))
            self.add(f"{path}.parts", script_parts(module))
        elif written:
            self.put(f"{path}.code", _hashed(str(module.code)))
        else:
            self.add(f"{path}.__class__", type(module))
        for name, value in {} if scripted else sorted(vars(module).items()):
            if name in UNIMPORTANT or _BACKWARD.fullmatch(name) or name in _HOOKS:
                continue
            if isinstance(module, Forecaster) and name in ("lineage", "control"):
                continue
            if (
                written
                and name not in ("_parameters", "_buffers", "_modules")
                and not isinstance(value, Tensor | nn.Module)
            ):
                continue  # of the program's tables only what it computes with
            self.add(f"{path}.{name}", value)
        if not scripted:
            hooks = [hook for kind in _HOOKS for hook in getattr(module, kind, {}).values()]
            self.add(f"{path}.hooks", [hook for hook in hooks if not written or is_own(hook)])

    def _callable(self, path: str, value: Any) -> None:
        """A function of compiled code, by name, with the object that it belongs to."""
        self.put(path, f"{getattr(value, '__module__', None)}.{value.__qualname__}")
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, type | types.ModuleType):
            self.add(f"{path}.__self__", owner)

    def _ufunc(self, path: str, value: np.ufunc) -> None:
        import scipy.special

        if any(getattr(place, value.__name__, None) is value for place in (np, scipy.special)):
            self.put(path, f"ufunc {value.__name__}")
        else:
            self.doubt(path, f"the ufunc {value.__name__}")

    def _partial(self, path: str, value: partial[Any]) -> None:
        self.put(path, "partial")
        self.add(f"{path}.function", value.func)
        self.add(f"{path}.arguments", value.args)
        self.add(f"{path}.keywords", dict(sorted(value.keywords.items())))
        self._attributes(path, value)

    def _member(self, path: str, value: enum.Enum) -> None:
        self.put(path, f"{type(value).__module__}.{type(value).__qualname__}.{value.name}")
        self.add(f"{path}.value", value.value)
        self.add(f"{path}.__class__", type(value))

    def _weak(self, path: str, value: Any) -> None:
        self.put(path, "weak")
        self.add(f"{path}.target", value())

    def _generator(self, path: str, value: torch.Generator) -> None:
        self.put(path, "generator")
        self.add(f"{path}.state", value.get_state())

    def _spec(self, path: str, value: Spec) -> None:
        self.put(path, f"{type(value).__qualname__} {value.digest}")


def _leaf(value: Any) -> str | None:
    """The text of a value that has no parts; None for others."""
    kind = type(value)
    if kind is int:
        return f"int {value:x}"
    if kind in _SIMPLE:
        return _hashed(f"{kind.__name__} {value!r}")
    if kind in (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.qscheme, range):
        return f"{kind.__name__} {value}"
    if isinstance(value, np.dtype):
        return f"dtype {value}"
    if isinstance(value, np.generic) and not isinstance(value, np.void | np.object_):
        return f"{value.dtype} {value!s}" if value.dtype.kind in "SUmM" else f"{value.dtype} {value.tobytes().hex()}"
    if isinstance(value, PurePath):
        return f"path {value}"
    if isinstance(value, Logger):
        return f"logger {value.name}"
    if isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return f"operator {value}"
    return None


def _shown(path: str) -> str:
    """A path as a reader would write it: ['module']._modules['head'].scale as module.head.scale."""
    return re.sub(r"\['([^']*)'\]", r".\1", re.sub(r"\._(modules|parameters|buffers)\b", "", path)).lstrip(".") or "it"


def _hashed(text: str) -> str:
    return text if len(text) <= 200 else hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _says_its_state(cls: type) -> bool:
    """Whether a class of a library has its own account of what its objects hold."""
    names = ("__reduce__", "__reduce_ex__", "__getstate__")
    return any(getattr(cls, name, None) is not getattr(object, name, None) for name in names) and not hasattr(
        cls, "get_params"  # scikit-learn's adds its version and nothing else
    )  # fmt: skip


_Walk.kinds = [
    (Spec, _Walk._spec),
    (enum.Enum, _Walk._member),
    (type, _Walk.add_class),
    (types.FunctionType, _Walk.add_function),
    (types.MethodType, _Walk.add_method),
    (types.CodeType, _Walk.add_code),
    (types.ModuleType, _Walk.add_module),
    (types.CellType, _Walk.add_cell),
    ((staticmethod, classmethod), _Walk.add_wrapper),
    (property, _Walk.add_property),
    (partial, _Walk._partial),
    (torch.jit.ScriptFunction, lambda walk, path, value: walk.put(path, _hashed(unmangled(str(value.graph))))),
    (_NAMED, _Walk._callable),
    (np.ufunc, _Walk._ufunc),
    (nn.Module, _Walk._module),
    (Tensor, _Walk.add_tensor),
    (np.ndarray, _Walk.add_array),
    (torch.Generator, _Walk._generator),
    (weakref.ReferenceType, _Walk._weak),
    ((dict, types.MappingProxyType), _Walk._mapping),
    ((list, tuple), _Walk._sequence),
    ((set, frozenset), _Walk._set),
]
