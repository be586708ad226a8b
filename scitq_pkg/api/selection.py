"""Which tasks: by a filter, or by ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest
from ..store import Transaction, tasks
from ..store.filters import Filter


def filter_of(query: Mapping[str, Any]) -> Filter:
    """The filter among the parameters of a query."""
    return Filter.of(query)


def selected(tx: Transaction, body: Mapping[str, Any]) -> list[int]:
    """The ids of the tasks that a bulk request means. Raises InvalidRequest if it does not say: that must not mean all."""
    ids, words = body.get("ids"), body.get("filter")
    if (ids is None) == (not words):
        raise InvalidRequest('give either ids or a filter; the filter {"name": "*"} means all', field="filter")
    return ids if ids is not None else tasks.ids_of(tx, Filter.of(words or {}))
