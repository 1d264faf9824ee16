"""Index arithmetic: any index expression into its canonical form, and questions about it.

The canonical form is a polynomial with integer coefficients over *atoms*: variables, and what no rule opens
(``floordiv``, ``mod``, ``min``, ``max``, casts, loads), whose operands are canonical themselves. Two expressions with
equal canonical forms are equal for all values; the converse is not claimed. The rules hold over mathematical
integers, with ``x // 0 = x % 0 = 0``:

- ``(q*c + r) // c = q + r // c`` and ``(q*c + r) % c = r % c`` for c > 0, and ``r // c = 0``, ``r % c = r`` where
  0 <= r < c is proven from the extents of the loop variables;
- ``(x // c) * c + x % c = x``; ``(x // a) // b = x // (a*b)`` for positive literals;
- ``min``/``max`` of operands whose difference has a known sign; ``min(a, b) + max(a, b) = a + b``.

Dividing by a symbolic extent n assumes n > 0, which holds wherever the quotient is used: inside a loop over n.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from jitflow.expr import INDEX, Binary, Const, Expr, Var, as_index, binary, const_index, fold_index

Monomial: TypeAlias = tuple[Expr, ...]
Poly: TypeAlias = dict[Monomial, int]
Extents: TypeAlias = Mapping[Var, Expr]


class _Scope(dict[Var, Expr]):
    """Extents, with what has been found out under them: nested min and max are otherwise looked at again and again."""

    __slots__ = ("highs", "lows", "polys")

    def __init__(self, extents: Extents = MappingProxyType({})) -> None:
        super().__init__(extents)
        self.polys: dict[Expr, Poly] = {}
        self.lows: dict[Expr, int | None] = {}
        self.highs: dict[Expr, Poly | None] = {}


#: No loop variables: what is found out holds for good.
_NO_EXTENTS = _Scope()
_CACHE: dict[Expr, Expr] = {}
_CACHE_LIMIT = 1 << 16


def _scope(extents: Extents | None) -> _Scope:
    if isinstance(extents, _Scope):
        return extents
    if extents:
        return _Scope(extents)
    if len(_NO_EXTENTS.polys) > _CACHE_LIMIT:
        for found in (_NO_EXTENTS.polys, _NO_EXTENTS.lows, _NO_EXTENTS.highs):
            found.clear()
    return _NO_EXTENTS


def simplify_index(e: Expr | int, extents: Extents | None = None) -> Expr:
    """Return the canonical form of index expression `e`.

    `extents` gives exclusive upper bounds of variables (a loop variable's extent); their lower bound is 0.
    """
    if not isinstance(e, Expr):
        return const_index(e)
    if isinstance(e, Const) or (isinstance(e, Var) and not extents):
        return e
    if extents:
        return _from_poly(_poly(e, _scope(extents)))
    hit = _CACHE.get(e)
    if hit is None:
        hit = _from_poly(_poly(e, _scope(None)))
        if len(_CACHE) > _CACHE_LIMIT:
            _CACHE.clear()
        _CACHE[e] = hit
    return hit


def poly_of(e: Expr | int, extents: Extents | None = None) -> Poly:
    """Return `e` as a polynomial: a dict from monomials (sorted tuples of atoms) to coefficients."""
    return dict(_poly(as_index(e), _scope(extents)))


def from_poly(p: Poly) -> Expr:
    """Return the canonical expression of polynomial `p`."""
    return _from_poly(p)


def known_sign(e: Expr | int, extents: Extents | None = None) -> int | None:
    """Return 0 if `e` is zero for all values, 1 or -1 if it is always positive or negative, None if unknown."""
    scope = _scope(extents)
    p = _poly(as_index(e), scope)
    if not p:
        return 0
    low, high = _bounds(p, scope)
    if low is not None and low > 0:
        return 1
    return -1 if high is not None and high < 0 else None


def is_nonnegative(e: Expr | int, extents: Extents | None = None) -> bool:
    """Tell whether `e` >= 0 is proven."""
    scope = _scope(extents)
    low = _least(_poly(as_index(e), scope), scope)
    return low is not None and low >= 0


def is_less(a: Expr | int, b: Expr | int, extents: Extents | None = None) -> bool:
    """Tell whether `a` < `b` is proven."""
    return is_nonnegative(as_index(b) - as_index(a) - 1, extents)


def same_index(a: Expr | int, b: Expr | int, extents: Extents | None = None) -> bool | None:
    """Tell whether `a` and `b` are equal for all values (True), for none (False), or undecided (None)."""
    if a is b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    sign = known_sign(as_index(a) - as_index(b), extents)
    return None if sign is None else sign == 0


def divides(d: Expr | int, e: Expr | int, extents: Extents | None = None) -> bool:
    """Tell whether `e` is proven to be a multiple of `d`, as h*w - 2*h is of w - 2.

    By the remainder theorem: a `d` that is an atom plus some rest divides what is 0 with minus the rest for the atom.
    """
    if simplify_index(as_index(e) % as_index(d), extents) == const_index(0):
        return True
    dividend, divisor = poly_of(e, extents), poly_of(d, extents)
    for monomial, c in divisor.items():
        if len(monomial) != 1 or c not in (1, -1):
            continue
        (atom,) = monomial
        root = {m: -c * k for m, k in divisor.items() if m != monomial}
        if any(a is atom for m in root for a in m):
            continue
        value: Poly = {}
        for m, k in dividend.items():
            term: Poly = {tuple(a for a in m if a is not atom): k}
            for _ in range(sum(a is atom for a in m)):
                term = _multiply(term, root)
            value = _add(value, term)
        if not value:
            return True
    return False


def split_linear(e: Expr | int, var: Var, extents: Extents | None = None) -> tuple[Expr, Expr] | None:
    """Return ``(stride, rest)`` with ``e = stride * var + rest`` and neither containing `var`, or None."""
    stride: Poly = {}
    rest: Poly = {}
    for monomial, c in poly_of(e, extents).items():
        hits = sum(1 for atom in monomial if atom is var)
        if hits == 0:
            if any(depends_on(atom, var) for atom in monomial):
                return None
            rest[monomial] = c
        elif hits == 1:
            others = tuple(atom for atom in monomial if atom is not var)
            if any(depends_on(atom, var) for atom in others):
                return None
            stride[others] = c
        else:
            return None
    return _from_poly(stride), _from_poly(rest)


def depends_on(e: Expr, var: Var) -> bool:
    """Tell whether `var` occurs in `e`."""
    if e is var:
        return True
    return any(depends_on(c, var) for c in e._children())  # type: ignore[attr-defined]


def free_vars(e: Expr | int) -> set[Var]:
    """Return the variables of `e`."""
    found: set[Var] = set()
    stack: list[Any] = [e] if isinstance(e, Expr) else []
    while stack:
        x = stack.pop()
        if isinstance(x, Var):
            found.add(x)
        else:
            stack.extend(x._children())
    return found


# ---- polynomials


@functools.lru_cache(8192)
def _order(e: Expr) -> tuple[Any, ...]:
    """Return a sort key that depends on structure and names only."""
    if isinstance(e, Var):
        return (0, e.name, e.serial)
    if isinstance(e, Const):
        return (1, e.value)
    if isinstance(e, Binary):
        return (2, e.op, _order(e.a), _order(e.b))
    return (3, type(e).__name__, tuple(_order(c) for c in e._children()))  # type: ignore[attr-defined]


def _monomial(a: Monomial, b: Monomial) -> Monomial:
    if not a:
        return b
    if not b:
        return a
    return tuple(sorted(a + b, key=_order))


def _add(p: Poly, q: Poly, scale: int = 1) -> Poly:
    out = dict(p)
    for m, c in q.items():
        total = out.get(m, 0) + scale * c
        if total:
            out[m] = total
        else:
            out.pop(m, None)
    return out


def _multiply(p: Poly, q: Poly) -> Poly:
    out: Poly = {}
    for m1, c1 in p.items():
        for m2, c2 in q.items():
            m = _monomial(m1, m2)
            total = out.get(m, 0) + c1 * c2
            if total:
                out[m] = total
            else:
                out.pop(m, None)
    return out


#: ``p + scale * q`` and ``p * q``, for callers that work on polynomials themselves.
add_polys, multiply_polys = _add, _multiply


def _literal(p: Poly) -> int | None:
    """Return the value of a constant polynomial, else None."""
    if not p:
        return 0
    if len(p) == 1 and () in p:
        return p[()]
    return None


def _poly(e: Expr, extents: _Scope) -> Poly:
    """Return `e` as a polynomial, which is shared: nobody changes it."""
    found = extents.polys.get(e)
    if found is None:
        found = extents.polys[e] = _polynomial(e, extents)
    return found


def _polynomial(e: Expr, extents: _Scope) -> Poly:
    if isinstance(e, Const):
        return {(): int(e.value)} if e.value else {}
    if isinstance(e, Var):
        bound = extents.get(e)
        return {} if isinstance(bound, Const) and bound.value == 1 else {(e,): 1}
    if isinstance(e, Binary) and e.type is INDEX:
        p, q = _poly(e.a, extents), _poly(e.b, extents)
        match e.op:
            case "add":
                return _merge_pairs(_add(p, q))
            case "sub":
                return _merge_pairs(_add(p, q, -1))
            case "mul":
                return _multiply(p, q)
            case "floordiv" | "mod":
                return _divide(e.op, p, q, extents)
            case "min" | "max":
                return _extremum(e.op, p, q, extents)
            case _:
                pass  # bit operations stay closed
    atom = e._map_children(lambda c: simplify_index(c, extents) if c.type is INDEX else c)  # type: ignore[attr-defined]
    return {(atom,): 1}


def _from_poly(p: Poly) -> Expr:
    if not p:
        return const_index(0)
    terms = sorted(p.items(), key=lambda t: (-len(t[0]), [_order(a) for a in t[0]]))
    # A positive term first, so that n - m is not printed as -m + n.
    for k, (_, c) in enumerate(terms):
        if c > 0:
            terms.insert(0, terms.pop(k)) if k else None
            break
    if terms[0][0] == () and len(terms) > 1:
        terms.append(terms.pop(0))
    out: Expr | None = None
    for monomial, c in terms:
        if out is None:
            out = _term(monomial, c)
        elif c < 0:
            out = Binary("sub", out, _term(monomial, -c))
        else:
            out = Binary("add", out, _term(monomial, c))
    assert out is not None
    return out


def _term(monomial: Monomial, c: int) -> Expr:
    if not monomial:
        return const_index(c)
    product = monomial[0]
    for atom in monomial[1:]:
        product = Binary("mul", product, atom)
    return product if c == 1 else Binary("mul", product, const_index(c))


def _bounds(p: Poly, extents: _Scope) -> tuple[int | None, int | None]:
    """Return proven least and greatest values of `p` (None where there is none).

    Symbolic extents are handled by bounding each loop variable by its extent - 1 and looking at the polynomial that
    is left, whose variables are dims >= 0.
    """
    return _least(p, extents), _negated(_least({m: -c for m, c in p.items()}, extents))


def _negated(x: int | None) -> int | None:
    return None if x is None else -x


def _least(p: Poly, extents: _Scope) -> int | None:
    # Replace, in terms with a negative coefficient, loop variables by their greatest value.
    for _ in range(8):
        changed = False
        out: Poly = {}
        for m, c in p.items():
            part: Poly = {m: c}
            if c < 0:
                for atom in m:
                    high = _atom_high(atom, extents)
                    if high is not None:
                        others = list(m)
                        others.remove(atom)
                        if all(_atom_low(o, extents) is not None for o in others):
                            part = _multiply({tuple(others): c}, high)
                            changed = True
                            break
            out = _add(out, part)
        p = out
        if not changed:
            break
    low = 0
    for m, c in p.items():
        if not m:
            low += c
            continue
        lows = [_atom_low(a, extents) for a in m]
        if c < 0 or any(x is None or x < 0 for x in lows):
            if c > 0 and len(m) == 1 and lows[0] is not None:
                low += c * lows[0]
                continue
            return None
        product = c
        for x in lows:
            product *= x or 0
        low += product
    return low


def _atom_low(atom: Expr, extents: _Scope) -> int | None:
    if atom not in extents.lows:
        extents.lows[atom] = _find_low(atom, extents)
    return extents.lows[atom]


def _find_low(atom: Expr, extents: _Scope) -> int | None:
    if isinstance(atom, Var):
        return 0 if atom in extents else atom.floor
    if isinstance(atom, Binary):
        if atom.op == "mod" and isinstance(atom.b, Const) and atom.b.value >= 0:
            return 0
        if atom.op == "mod" and isinstance(atom.b, Var) and atom.b.floor is not None and atom.b.floor >= 0:
            return 0
        if atom.op == "floordiv" and isinstance(atom.b, Const) and atom.b.value > 0:
            low = _least(_poly(atom.a, extents), extents)
            return None if low is None else low // int(atom.b.value)
        if atom.op == "floordiv":
            a, b = _least(_poly(atom.a, extents), extents), _least(_poly(atom.b, extents), extents)
            return 0 if a is not None and b is not None and a >= 0 and b >= 0 else None
        if atom.op in ("min", "max"):
            a, b = _least(_poly(atom.a, extents), extents), _least(_poly(atom.b, extents), extents)
            if atom.op == "min":
                return None if a is None or b is None else min(a, b)
            known = [x for x in (a, b) if x is not None]
            return max(known) if known else None
    return None


def _atom_high(atom: Expr, extents: _Scope) -> Poly | None:
    """Return a polynomial that `atom` never exceeds, or None."""
    if atom not in extents.highs:
        extents.highs[atom] = _find_high(atom, extents)
    return extents.highs[atom]


def _find_high(atom: Expr, extents: _Scope) -> Poly | None:
    if isinstance(atom, Var):
        bound = extents.get(atom)
        return None if bound is None else _add(_poly(bound, _NO_EXTENTS), {(): -1})
    if isinstance(atom, Binary):
        if atom.op == "mod" and isinstance(atom.b, Const) and atom.b.value > 0:
            return {(): int(atom.b.value) - 1} if atom.b.value > 1 else {}
        if atom.op == "min":
            return _poly(atom.b, extents) if isinstance(atom.b, Const) else _poly(atom.a, extents)
        if atom.op == "floordiv" and isinstance(atom.b, Const) and atom.b.value > 0:
            # x // c <= (greatest x) // c, useful when that is a literal.
            high = _least({m: -c for m, c in _poly(atom.a, extents).items()}, extents)
            return None if high is None else {(): (-high) // int(atom.b.value)}
    return None


def _in_range(p: Poly, divisor: Poly, extents: _Scope) -> bool:
    """Tell whether 0 <= p < divisor is proven."""
    low = _least(p, extents)
    if low is None or low < 0:
        return False
    gap = _least(_add(_add(divisor, p, -1), {(): -1}), extents)
    return gap is not None and gap >= 0


def _divide(op: str, p: Poly, q: Poly, extents: _Scope) -> Poly:
    a, b = _literal(p), _literal(q)
    if b is not None and a is not None:
        value = fold_index(op, a, b)
        return {(): value} if value else {}
    if b == 0:
        return {}
    if b == 1:
        return p if op == "floordiv" else {}
    if not p:
        return {}
    if p == q:
        # n // n is 1 and n % n is 0 wherever the quotient is used (see the module docstring).
        return {(): 1} if op == "floordiv" else {}
    # Only a divisor that is one positive term is opened.
    quotient: Poly = {}
    rest = p
    if len(q) == 1:
        ((monomial, c),) = q.items()
        if c > 0:
            quotient, rest = {}, {}
            for m, k in p.items():
                left = _without(m, monomial)
                if left is not None and k % c == 0:
                    quotient[left] = k // c
                elif left is not None and not monomial and k // c and m == ():
                    quotient[left] = k // c  # split a literal: 70 // 64 = 1 + 6 // 64
                    rest[m] = k % c
                else:
                    rest[m] = k
            if _in_range(rest, q, extents):
                return quotient if op == "floordiv" else rest
    if not rest:
        return {} if op == "mod" else quotient
    inner = _from_poly(rest)
    # (a // b) // q is a // (b*q), and so (a // b) % q is a // b where that is 0.
    if (
        isinstance(inner, Binary)
        and inner.op == "floordiv"
        and _is_positive(q)
        and _is_positive(_poly(inner.b, extents))
    ):
        outer = _divide("floordiv", _poly(inner.a, extents), _multiply(_poly(inner.b, extents), q), extents)
        if op == "floordiv":
            return _add(quotient, outer)
        if not outer:
            return rest
    if op == "mod":
        return {(Binary("mod", inner, _from_poly(q)),): 1}
    less = _cancelled(rest, q, extents)
    if less is not None:
        return _add(quotient, _divide("floordiv", *less, extents))
    return _merge_pairs(_add(quotient, {(Binary("floordiv", inner, _from_poly(q)),): 1}))


def _is_positive(p: Poly) -> bool:
    """Tell whether `p` is one term that is positive wherever it divides: its literal is, and dims are not negative."""
    return len(p) == 1 and all(c > 0 and all(is_nonnegative(a) for a in m) for m, c in p.items())


def _cancelled(p: Poly, q: Poly, extents: _Scope) -> tuple[Poly, Poly] | None:
    """Return a and m of ``p = g*a + r`` and ``q = g*m`` where 0 <= r < g is proven: ``p // q`` is ``a // m``."""
    if len(p) < 2 or not _is_positive(q):
        return None
    ((divisor, c),) = q.items()
    for m, k in p.items():
        common = tuple(a for n, a in enumerate(divisor) if divisor[: n + 1].count(a) <= m.count(a))
        g = math.gcd(k, c)
        if not m or (not common and g == 1):
            continue
        parts: tuple[Poly, Poly] = {}, {}
        for n, factor in p.items():
            left = _without(n, common)
            if left is not None and factor % g == 0:
                parts[0][left] = factor // g
            else:
                parts[1][n] = factor
        rest = _without(divisor, common)
        assert rest is not None
        if parts[1] and _in_range(parts[1], {common: g}, extents):
            return parts[0], {rest: c // g}
    return None


def _without(m: Monomial, part: Monomial) -> Monomial | None:
    """Return monomial `m` divided by `part`, or None."""
    left = list(m)
    for atom in part:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _merge_pairs(p: Poly) -> Poly:
    """Apply ``(x // c) * c + x % c = x`` and ``min(a, b) + max(a, b) = a + b`` to `p`, also under a common factor."""
    merged = _merge_extrema(p)
    if merged is not None:
        return _merge_pairs(merged)
    for m, k in p.items():
        for atom in m:
            if not (isinstance(atom, Binary) and atom.op == "mod"):
                continue
            factor = list(m)
            factor.remove(atom)
            # k * factor * (x % c) wants the partner k * factor * c * (x // c): one term for each term of c.
            scaled = _multiply({tuple(factor): k}, _poly(atom.b, _NO_EXTENTS))
            partners = _multiply(scaled, _quotient(atom))
            if partners and all(p.get(key) == scale for key, scale in partners.items()):
                out = {key: scale for key, scale in p.items() if key != m and key not in partners}
                whole = _multiply({tuple(factor): k}, _poly(atom.a, _NO_EXTENTS))
                return _merge_pairs(_add(out, whole))
    return p


def _quotient(remainder: Binary) -> Poly:
    """Return ``x // c`` for ``x % c``, in canonical form: of a quotient x it is that of the product of the divisors."""
    x = remainder.a
    if isinstance(x, Binary) and x.op == "floordiv":
        return _divide("floordiv", _poly(x, _NO_EXTENTS), _poly(remainder.b, _NO_EXTENTS), _NO_EXTENTS)
    return {(Binary("floordiv", x, remainder.b),): 1}


def _merge_extrema(p: Poly) -> Poly | None:
    """Return `p` with ``min(a, b) + max(a + c, b + c) = a + b + c``, c a literal, applied once; None if nowhere."""
    # Sums of hundreds of minima ask this at each addition: each finds the maxima beside it by what they multiply.
    maxima: dict[tuple[int, Monomial], list[tuple[Monomial, Binary]]] = {}
    minima: list[tuple[int, Monomial, Monomial, Binary]] = []
    for m, k in p.items():
        for at, atom in enumerate(m):
            if isinstance(atom, Binary) and atom.op in ("min", "max"):
                factor = m[:at] + m[at + 1 :]
                if atom.op == "max":
                    maxima.setdefault((k, factor), []).append((m, atom))
                else:
                    minima.append((k, factor, m, atom))
    if not maxima:
        return None
    for k, factor, m, least in minima:
        for m2, greatest in maxima.get((k, factor), ()):
            a, b = _poly(least.a, _NO_EXTENTS), _poly(least.b, _NO_EXTENTS)
            x, y = _poly(greatest.a, _NO_EXTENTS), _poly(greatest.b, _NO_EXTENTS)
            for first, second in ((a, b), (b, a)):
                c = _literal(_add(x, first, -1))
                if c is not None and c == _literal(_add(y, second, -1)):
                    out = {key: scale for key, scale in p.items() if key not in (m, m2)}
                    return _add(out, _multiply({factor: k}, _add(x, second)))
    return None


def _extremum(op: str, p: Poly, q: Poly, extents: _Scope) -> Poly:
    difference = _add(p, q, -1)
    if not difference:
        return p
    low, high = _bounds(difference, extents)
    if low is not None and low >= 0:
        return q if op == "min" else p
    if high is not None and high <= 0:
        return p if op == "min" else q
    a, b = _from_poly(p), _from_poly(q)
    if _order(a) > _order(b):
        a, b = b, a
    return {(Binary(op, a, b),): 1}


def evaluate_index(e: Expr | int, values: Mapping[Var, int]) -> int:
    """Return the value of index expression `e` for given values of its variables. Raises KeyError for a missing one."""
    if isinstance(e, int):
        return e
    if isinstance(e, Const):
        return int(e.value)
    if isinstance(e, Var):
        return values[e]
    assert isinstance(e, Binary)
    return fold_index(e.op, evaluate_index(e.a, values), evaluate_index(e.b, values))


def rebuild(e: Expr, values: Mapping[Var, Expr]) -> Expr:
    """Return `e` with variables replaced, in canonical form."""
    if isinstance(e, Var):
        return values.get(e, e)
    if isinstance(e, Const):
        return e
    assert isinstance(e, Binary)
    return simplify_index(binary(e.op, rebuild(e.a, values), rebuild(e.b, values)))
