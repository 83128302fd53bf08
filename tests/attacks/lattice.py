"""Lattice reduction (Lenstra, Lenstra, Lovász 1982) in exact integers: all that an attacker needs."""

from __future__ import annotations

from fractions import Fraction

_QUALITY = Fraction(3, 4)


def reduced(basis: list[list[int]]) -> list[list[int]]:
    """Returns a basis of the same lattice whose vectors are short; the rows given must be linearly independent.

    Gram-Schmidt coefficients are kept exactly and brought up to date at each swap (Cohen, "A Course in Computational
    Algebraic Number Theory", algorithm 2.6.3).
    """
    rows = [list(row) for row in basis]
    count = len(rows)
    squares, coefficients = _gram_schmidt(rows)
    at = 1
    while at < count:
        _shorten(rows, coefficients, at, at - 1)
        lower = coefficients[at][at - 1]
        if squares[at] >= (_QUALITY - lower * lower) * squares[at - 1]:
            for other in range(at - 2, -1, -1):
                _shorten(rows, coefficients, at, other)
            at += 1
            continue
        _swap(rows, squares, coefficients, at)
        at = max(1, at - 1)
    return rows


def _dot(left: list[Fraction], right: list[Fraction]) -> Fraction:
    return sum((one * other for one, other in zip(left, right, strict=True)), Fraction())


def _gram_schmidt(rows: list[list[int]]) -> tuple[list[Fraction], list[list[Fraction]]]:
    orthogonal: list[list[Fraction]] = []
    squares: list[Fraction] = []
    coefficients: list[list[Fraction]] = []
    for row in rows:
        exact = [Fraction(item) for item in row]
        rest, line = list(exact), []
        for earlier, square in zip(orthogonal, squares, strict=True):
            line.append(_dot(exact, earlier) / square)
            rest = [item - line[-1] * part for item, part in zip(rest, earlier, strict=True)]
        orthogonal.append(rest)
        squares.append(_dot(rest, rest))
        coefficients.append([*line, *[Fraction()] * (len(rows) - len(line))])
    return squares, coefficients


def _shorten(rows: list[list[int]], coefficients: list[list[Fraction]], at: int, by: int) -> None:
    times = round(coefficients[at][by])
    if times:
        rows[at] = [item - times * part for item, part in zip(rows[at], rows[by], strict=True)]
        for index in range(by):
            coefficients[at][index] -= times * coefficients[by][index]
        coefficients[at][by] -= times


def _swap(rows: list[list[int]], squares: list[Fraction], coefficients: list[list[Fraction]], at: int) -> None:
    rows[at], rows[at - 1] = rows[at - 1], rows[at]
    for index in range(at - 1):
        upper, lower = coefficients[at], coefficients[at - 1]
        upper[index], lower[index] = lower[index], upper[index]
    share = coefficients[at][at - 1]
    square = squares[at] + share * share * squares[at - 1]
    coefficients[at][at - 1] = share * squares[at - 1] / square
    squares[at] = squares[at - 1] * squares[at] / square
    squares[at - 1] = square
    for index in range(at + 1, len(rows)):
        line = coefficients[index]
        line[at - 1], line[at] = (
            line[at] + coefficients[at][at - 1] * (line[at - 1] - share * line[at]),
            line[at - 1] - share * line[at],
        )
