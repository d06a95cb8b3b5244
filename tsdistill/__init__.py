"""Train large forecasters, distil them into small ones, prune, quantize and ship them.

Every name is imported on first use: `import tsdistill` loads neither torch nor pandas. The names stand in
`__init__.pyi`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
