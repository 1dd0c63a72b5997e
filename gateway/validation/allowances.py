"""What a tenant or a key may be allowed: limits, budgets, models, regions, and their labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gateway.validation.fields import Violations, check_enum, check_model_name, quote
from penstock.api.types.v1 import limits_pb2, metadata_pb2

MOST_MODELS = 1_000
"""Models, or limits of single models, of one tenant or key."""
MOST_REGIONS = 100
"""Regions of one tenant or key."""
MOST_LABELS = 16
LONGEST_LABEL_NAME = 64
LONGEST_LABEL = 512
LONGEST_DISPLAY_NAME = 128
LARGEST_NUMBER = 2**53 - 1
"""Of a limit or budget: what Redis' scripts count exactly."""

_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_PER_MODEL = ("requests_per_minute", "units_per_minute", "concurrent_calls")
_LAST_UNIT = max(metadata_pb2.UsageUnit.values())
_LAST_PERIOD = max(limits_pb2.BudgetPeriod.values())


def check_display_name(field: str, name: str, violations: Violations) -> None:
    """Checks a name for people."""
    if len(name) > LONGEST_DISPLAY_NAME:
        violations.add(field, f"has {len(name)} characters; at most {LONGEST_DISPLAY_NAME}")


def check_labels(field: str, labels: Mapping[str, str], violations: Violations) -> None:
    """Checks an operator's labels."""
    if len(labels) > MOST_LABELS:
        violations.add(field, f"has {len(labels)} labels; at most {MOST_LABELS} are allowed")
        return
    for name, value in sorted(labels.items()):
        if not 0 < len(name) <= LONGEST_LABEL_NAME:
            violations.add(field, f"{quote(name)}: names have 1 to {LONGEST_LABEL_NAME} characters")
        elif len(value) > LONGEST_LABEL:
            violations.add(field, f"{quote(name)}: values have up to {LONGEST_LABEL} characters")


def check_limits(field: str, limits: limits_pb2.Limits, violations: Violations) -> None:
    """Checks that the limits can be counted."""
    for descriptor, value in limits.ListFields():
        if value > LARGEST_NUMBER:
            violations.add(f"{field}.{descriptor.name}", f"is above {LARGEST_NUMBER:,}")


def check_budgets(
    field: str, budgets: Sequence[limits_pb2.Budget], currency: str, violations: Violations
) -> None:
    """Checks that each counts one thing in one period, and that no two count the same.

    ``currency`` is the price table's; empty where there is none.
    """
    seen: set[tuple[int, str, int]] = set()
    for index, budget in enumerate(budgets):
        at = f"{field}[{index}]"
        if violations.full:
            return
        counted = (budget.unit, budget.currency, budget.period)
        if counted in seen:
            violations.add(at, "counts what an earlier one counts, in the same period")
        seen.add(counted)
        _check_budget(at, budget, currency, violations)


def _check_budget(
    at: str, budget: limits_pb2.Budget, currency: str, violations: Violations
) -> None:
    check_enum(f"{at}.unit", budget.unit, _LAST_UNIT, violations)
    if budget.amount > LARGEST_NUMBER:
        violations.add(f"{at}.amount", f"is above {LARGEST_NUMBER:,}")
    if not budget.period:
        violations.add(f"{at}.period", "is required")
    else:
        check_enum(f"{at}.period", budget.period, _LAST_PERIOD, violations)
    if budget.unit and budget.currency:
        violations.add(at, "counts either a unit or money, not both")
    elif not budget.unit and not budget.currency:
        violations.add(at, "needs a unit or a currency")
    elif budget.currency and not _CURRENCY.fullmatch(budget.currency):
        violations.add(f"{at}.currency", f"{quote(budget.currency)} is not an ISO 4217 code")
    elif budget.currency and budget.currency != currency:
        table = f"the price table is in {currency}" if currency else "there is no price table"
        violations.add(f"{at}.currency", f"{table}, so nothing can be counted in it")


def check_model_limits(
    field: str,
    entries: Sequence[limits_pb2.ModelLimits],
    currency: str,
    violations: Violations,
) -> None:
    """Checks the limits of single models."""
    if len(entries) > MOST_MODELS:
        violations.add(field, f"has {len(entries):,} entries; at most {MOST_MODELS:,} are allowed")
        return
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        at = f"{field}[{index}]"
        if violations.full:
            return
        check_model_name(entry.model, violations, f"{at}.model")
        if entry.model in seen:
            violations.add(f"{at}.model", "has an earlier entry")
        seen.add(entry.model)
        for descriptor, _ in entry.limits.ListFields():
            if descriptor.name not in _PER_MODEL:
                violations.add(f"{at}.limits.{descriptor.name}", "does not apply to one model")
        check_limits(f"{at}.limits", entry.limits, violations)
        check_budgets(f"{at}.budgets", entry.budgets, currency, violations)


def check_models(
    field: str, models: Sequence[str], violations: Violations, *, prefixes: bool
) -> None:
    """Checks a list of models; ``prefixes`` says whether * may end a name."""
    if len(models) > MOST_MODELS:
        violations.add(field, f"has {len(models):,} items; at most {MOST_MODELS:,} are allowed")
        return
    for index, model in enumerate(models):
        if violations.full:
            return
        if prefixes and model.endswith("*"):
            # A prefix is a name that goes on: "a" completes the empty one.
            check_model_name(model[:-1] or "a", violations, f"{field}[{index}]")
        else:
            check_model_name(model, violations, f"{field}[{index}]")


def check_regions(field: str, regions: Sequence[str], violations: Violations) -> None:
    """Checks a list of regions; which ones exist depends on the replicas of the moment."""
    if len(regions) > MOST_REGIONS:
        violations.add(field, f"has {len(regions):,} items; at most {MOST_REGIONS:,} are allowed")
        return
    for index, region in enumerate(regions):
        if not _REGION.fullmatch(region):
            violations.add(f"{field}[{index}]", f"{quote(region)} cannot be a region's name")
