"""All workloads of the benchmark: importing this package collects the families of its modules."""

from tests.bench.workloads import chains, convolutions, movement, networks, products, reductions, rows
from tests.bench.workloads.workload import FAMILIES, Array, Family, Workload

_ORDER = ("chains", "rows", "reductions", "products", "convolutions", "networks", "movement")
FAMILIES.sort(key=lambda f: _ORDER.index(f.section))

__all__ = [
    "FAMILIES", "Array", "Family", "Workload",
    "chains", "convolutions", "movement", "networks", "products", "reductions", "rows",
]  # fmt: skip
