"""TorchScript programs by their code, constants and attributes."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn


def unmangled(text: str) -> str:
    """TorchScript without places and numbers of this process, and those that tell classes of one name apart."""
    return re.sub(r"\.?___torch_mangle_\d+|#.*|%\d+|0x[0-9a-f]+", "", text)


def script_parts(module: Any) -> dict[str, Any]:
    """Constants of the methods of a TorchScript module and of its parts, and all attributes that are no modules."""
    parts: dict[str, Any] = {}
    for place, part in module.named_modules():
        for name in part._c._method_names():
            code, constants = part._c._get_method(name).code_with_constants
            parts[f"{place}.{name}()"] = [unmangled(code), dict(getattr(constants, "const_mapping", constants))]
        listed = part._c.dump_to_str(False, True, False).partition("\n  attributes {\n")[2].partition("\n  }\n")[0]
        for name in re.findall(r"^    (\w+) = ", listed, flags=re.MULTILINE):
            value = getattr(part, name, None)
            is_module = isinstance(value, nn.Module | torch.ScriptObject) and hasattr(value, "_method_names")
            if name != "training" and not is_module and not isinstance(value, nn.Module):
                parts[f"{place}.{name}"] = value
    return parts
