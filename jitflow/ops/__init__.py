"""Every operator, by module; importing this package fills `jitflow.graph.OPS`.

A file put into this folder is found without being named anywhere; what users call is marked in it (`jitflow.public`).
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
