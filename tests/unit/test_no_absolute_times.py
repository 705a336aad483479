"""No test asserts an absolute time: it would measure the machine, and what else that has to do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MEASURE = ("benchmarks", "gpu", "gpu_program", "data")  # these are there to measure, and assert no promise
CLOCKS = {"monotonic", "perf_counter", "time", "monotonic_ns", "perf_counter_ns"}


def absolute_times(source: str) -> Iterator[int]:
    """Lines of assertions that something timed is less than a number, or was so by a name that the time was given."""
    tree = ast.parse(source)
    timed = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _is_difference_of_clocks(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for assertion in ast.walk(tree):
        if not isinstance(assertion, ast.Assert):
            continue
        for compare in ast.walk(assertion.test):
            if isinstance(compare, ast.Compare) and any(
                isinstance(operator, ast.Lt | ast.LtE)
                and isinstance(right, ast.Constant)
                and (_is_difference_of_clocks(left) or (isinstance(left, ast.Name) and left.id in timed))
                for left, operator, right in zip(
                    [compare.left, *compare.comparators], compare.ops, compare.comparators, strict=False
                )
            ):
                yield assertion.lineno


def _is_difference_of_clocks(node: ast.expr) -> bool:
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Sub):
        return False
    call = node.left
    name = call.func if isinstance(call, ast.Call) else None
    return (isinstance(name, ast.Attribute) and name.attr in CLOCKS) or (
        isinstance(name, ast.Name) and name.id in CLOCKS
    )


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("assert time.monotonic() - start < 2", [1]),
        ("elapsed = perf_counter() - start\nassert 0.5 <= elapsed < 2.0", [2]),
        ("assert time.monotonic() - start >= 2", []),
        ("assert time.monotonic() - start < rollout_s / 2", []),
    ],
)
def test_an_absolute_time_is_found(source: str, lines: list[int]) -> None:
    assert list(absolute_times(source)) == lines


def test_no_test_asserts_one() -> None:
    files = [file for file in TESTS.rglob("*.py") if file.relative_to(TESTS).parts[0] not in MEASURE]
    assert len(files) > 100
    assert {
        f"{file.relative_to(TESTS)}:{line}"
        for file in files
        for line in absolute_times(file.read_text(encoding="utf-8"))
    } == set()
