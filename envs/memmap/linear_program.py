"""A builder of sparse linear and integer programs for HiGHS, with bounds that do not hang on the solver's tolerance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

from schedrl.arrays import F64

__all__ = ["LinearProgram", "ProgramSolution"]

# HiGHS accepts rows and integers that are off by 1e-6 of the scale of the model.
_TOLERANCE = 1e-6
_GAP = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSolution:
    """What the solver found out about a program that it minimises."""

    values: F64 | None  # (V,) None when the time was too short for any
    bound: float
    optimal: bool


@dataclass(slots=True)
class LinearProgram:
    """Minimise a linear cost over variables with finite bounds; a variable numbered -1 stands for a constant 0."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    integer: list[bool] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)
    term_row: list[int] = field(default_factory=list)
    term_variable: list[int] = field(default_factory=list)
    coefficient: list[float] = field(default_factory=list)

    def variable(self, lower: float, upper: float, *, cost: float = 0.0, integer: bool = False) -> int:
        """Add a variable and return its number."""
        self.lower.append(lower)
        self.upper.append(upper)
        self.cost.append(cost)
        self.integer.append(integer)
        return len(self.lower) - 1

    def binary(self) -> int:
        """Add a variable that is 0 or 1 and return its number."""
        return self.variable(0.0, 1.0, integer=True)

    def row(self, terms: Iterable[tuple[int, float]], *, lower: float = -math.inf, upper: float = math.inf) -> None:
        """Add bounds on a sum of (variable, coefficient) terms."""
        number = len(self.row_lower)
        for variable, coefficient in terms:
            if variable >= 0:
                self.term_row.append(number)
                self.term_variable.append(variable)
                self.coefficient.append(coefficient)
        self.row_lower.append(lower)
        self.row_upper.append(upper)

    def at_most(self, low: Iterable[int], high: Iterable[int]) -> None:
        """Demand that the sum of some variables is at most the sum of others."""
        self.row([(variable, 1.0) for variable in low] + [(variable, -1.0) for variable in high], upper=0.0)

    def solve_relaxed(self, time_limit_s: float = math.inf) -> ProgramSolution:
        """Solve with fractions allowed.

        The bound is the Lagrangian value of the solver's multipliers: any multipliers give a bound, exact or not.
        """
        result = self._solved(integer=False, time_limit_s=time_limit_s)
        bound = self._lagrangian(np.zeros(len(self.row_lower)))
        if result.has_dual_feasible_solution():
            dual = result.dual_values()
            bound = max(bound, self._lagrangian(np.array([dual[row] for row in sorted(dual, key=lambda row: row.id)])))
        return _solution(result, bound)

    def solve(self, time_limit_s: float) -> ProgramSolution:
        """Solve in integers within some seconds; the bound is the solver's less its tolerance."""
        result = self._solved(integer=True, time_limit_s=time_limit_s)
        bound = float(result.termination.objective_bounds.dual_bound)
        floor = self._lagrangian(np.zeros(len(self.row_lower)))
        return _solution(result, max(bound - _TOLERANCE * abs(bound), floor) if math.isfinite(bound) else floor)

    def _solved(self, *, integer: bool, time_limit_s: float) -> Any:
        from ortools.math_opt.python import mathopt

        # HiGHS spends more on presolving the long chains of sums than it gains.
        parameters = mathopt.SolveParameters(
            presolve=mathopt.Emphasis.OFF,
            relative_gap_tolerance=_GAP if integer else None,
            time_limit=timedelta(seconds=max(time_limit_s, 1e-3)) if math.isfinite(time_limit_s) else None,
        )
        model = mathopt.Model.from_model_proto(self._message(integer))
        return mathopt.solve(model, mathopt.SolverType.HIGHS, params=parameters)

    def _message(self, integer: bool) -> Any:
        from ortools.math_opt import model_pb2

        columns, rows = len(self.lower), len(self.row_lower)
        message = model_pb2.ModelProto()
        message.variables.ids.extend(range(columns))
        message.variables.lower_bounds.extend(self.lower)
        message.variables.upper_bounds.extend(self.upper)
        message.variables.integers.extend(self.integer if integer else [False] * columns)
        priced = np.flatnonzero(self.cost)
        message.objective.linear_coefficients.ids.extend(priced.tolist())
        message.objective.linear_coefficients.values.extend(np.array(self.cost)[priced].tolist())
        message.linear_constraints.ids.extend(range(rows))
        message.linear_constraints.lower_bounds.extend(self.row_lower)
        message.linear_constraints.upper_bounds.extend(self.row_upper)
        key = np.array(self.term_row, dtype=np.int64) * columns + np.array(self.term_variable, dtype=np.int64)
        entry, place = np.unique(key, return_inverse=True)
        matrix = message.linear_constraint_matrix
        matrix.row_ids.extend((entry // max(columns, 1)).tolist())
        matrix.column_ids.extend((entry % max(columns, 1)).tolist())
        matrix.coefficients.extend(np.bincount(place, self.coefficient, minlength=len(entry)).tolist())
        return message

    def _lagrangian(self, dual: F64) -> float:
        """Return the least cost when rows are priced instead of enforced; prices of absent bounds count as 0."""
        side = np.where(dual > 0, self.row_lower, self.row_upper)
        dual = np.where(np.isfinite(side), dual, 0.0)
        reduced = np.array(self.cost)
        weight = dual[np.array(self.term_row, dtype=np.int64)] * np.array(self.coefficient)
        np.subtract.at(reduced, np.array(self.term_variable, dtype=np.int64), weight)
        gains = reduced * np.where(reduced > 0, self.lower, self.upper)
        terms = np.concatenate([dual * np.where(np.isfinite(side), side, 0.0), gains])
        # Products are rounded to one part in 2^53 each, which may favour the bound.
        return math.fsum(terms.tolist()) - 1e-13 * float(np.abs(terms).sum())


def _solution(result: Any, bound: float) -> ProgramSolution:
    values, optimal = None, False
    if result.has_primal_feasible_solution():
        found = result.variable_values()
        values = np.array([found[variable] for variable in sorted(found, key=lambda variable: variable.id)])
        optimal = result.termination.reason.name == "OPTIMAL"
    return ProgramSolution(values=values, bound=bound, optimal=optimal)
