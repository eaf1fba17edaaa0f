"""How a product with letters for its axes, `a,b->f`, becomes one call of BLAS.

The letters are those of `chainrule_engine.operations.products`: r for the rows, each other for an axis. What both have
and f has not is summed over.
"""

from __future__ import annotations

import math

from chainrule_engine.plan.trace import Shape, Trace, Traced


def product(trace: Trace, a: Traced, b: Traced, letters: tuple[str, str, str]) -> Traced:
    """Record f = Σ a b over the shared letters that f lacks, as few calls as possible.

    Where the trace goes by row, each row is a product of its own."""
    la, lb, lf = letters
    by_row = trace.by_row and "r" in lf
    summed = "".join(letter for letter in la if letter in lb and letter not in lf)
    sizes = dict(zip(la + lb, a.shape + b.shape, strict=True))
    shape = tuple(sizes[letter] for letter in lf)
    if not summed:
        if lb + la == lf:
            a, b, la, lb = b, a, lb, la
        is_whole = all(value.buffer is not None and value.kept == value.shape for value in (a, b))
        if is_whole and la + lb == lf and not by_row:
            # An outer product is faster as a product of a column and a row.
            column, row = trace.full(a).reshape(a.size, 1), trace.full(b).reshape(1, b.size)
            return trace.add("dot", [column, row], (a.size, b.size)).reshape(shape)
        outer: Traced = _spread(a, la, lf) * _spread(b, lb, lf)
        return outer
    a, b = trace.full(a), trace.full(b)
    common = [letter for letter in la if letter in lb and letter in lf]
    if not common and not by_row:
        for left, l_left, right, l_right in ((a, la, b, lb), (b, lb, a, la)):
            one, other = _matrix(left, l_left, summed, last=True), _matrix(right, l_right, summed, last=False)
            free = _without(l_left, summed) + _without(l_right, summed)
            if one is not None and other is not None and free == lf:
                flat = (*one.shape[:-1], *other.shape[1:])
                return trace.add("dot", [one, other], flat).reshape(shape)
    if len(summed) == 1 and la == lb == lf + summed:
        return trace.add("vecdot", [a, b], shape)
    stacked = _stacked(trace, a, b, letters, summed)
    if stacked is not None:
        return stacked.reshape(shape)
    return trace.add("einsum", [a, b], shape, detail=(f"{la},{lb}->{lf}",))


def _without(letters: str, removed: str) -> str:
    return "".join(letter for letter in letters if letter not in removed)


def _spread(value: Traced, own: str, all_letters: str) -> Traced:
    """With an axis of length 1 for each letter that is missing, so that it multiplies element by element."""
    order = "".join(letter for letter in all_letters if letter in own)
    if order != own:  # only in `@` of matrices, never: its operands keep the order of the letters
        raise NotImplementedError(f"axes {own} in the order {all_letters}")
    lengths = iter(value.shape)
    shape = tuple(next(lengths) if letter in own else 1 for letter in all_letters)
    if shape == value.shape:
        return value
    if value.buffer is None:
        return value.trace.number(value.number, shape)
    lengths = iter(value.kept)
    kept = tuple(next(lengths) if letter in own else 1 for letter in all_letters)
    text = ", ".join(":" if letter in own else "None" for letter in all_letters)
    return value._viewed(f"[{text}]", shape, kept, contiguous=value.contiguous)


def _matrix(value: Traced, letters: str, summed: str, *, last: bool) -> Traced | None:
    """As a matrix (or vector) whose last, or first, axis is all that is summed over; None where that needs a copy."""
    free = _without(letters, summed)
    sizes = dict(zip(letters, value.shape, strict=True))
    count = math.prod(sizes[letter] for letter in summed)
    rest: Shape = (math.prod(sizes[letter] for letter in free),) if free else ()
    if letters == free + summed:
        matrix = value.reshape(*rest, count)
        return matrix if last else matrix.transposed()
    if letters == summed + free:
        matrix = value.reshape(count, *rest)
        return matrix.transposed() if last else matrix
    return None


def _stacked(trace: Trace, a: Traced, b: Traced, letters: tuple[str, str, str], summed: str) -> Traced | None:
    """As a product of two matrices for each row."""
    la, lb, lf = letters
    if (
        "r" not in lf
        or len(summed) != 1
        or _without(lf, "r") != _without(la, "r" + summed) + _without(lb, "r" + summed)
    ):
        return None
    one, other = _plane(a, la, summed, last=True), _plane(b, lb, summed, last=False)
    shape = (max(one.shape[0], other.shape[0]), one.shape[1], other.shape[2])
    return trace.add("matmul", [one, other], shape)


def _plane(value: Traced, letters: str, summed: str, *, last: bool) -> Traced:
    """As (rows or 1, free, summed), or with the last two the other way round."""
    own = _without(letters, "r")
    rows = value.shape[0] if "r" in letters else 1
    count = value.shape[letters.index(summed)]
    free = value.size // (rows * count)
    if own[-1] == summed:
        plane, is_last = value.reshape(rows, free, count), True
    else:
        plane, is_last = value.reshape(rows, count, free), False
    if is_last == last:
        return plane
    shape = (plane.shape[0], plane.shape[2], plane.shape[1])
    return plane._viewed(".swapaxes(1, 2)", shape, shape, contiguous=False)
