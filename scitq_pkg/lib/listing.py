"""A list of the server that may hold more than memory does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from .client import PAGE


class Listing(list):
    """A list that is iterated over page by page, one in memory at a time; whatever else is done with it brings it here whole.

    The first page is asked at once, so that what is wrong is told at once. A longer list is asked again by each new iteration.
    """

    def __init__(self, ask: Callable[[], Iterator[dict]], show: Callable[[dict], object]):
        self._ask, self._show = ask, show
        self._rest: Iterator[dict] | None = ask()
        super().__init__(show(item) for item in islice(self._rest, PAGE))
        self._is_whole = super().__len__() < PAGE

    def __iter__(self) -> Iterator:
        return super().__iter__() if self._is_whole else self._pages()

    def _pages(self) -> Iterator:
        rest, self._rest = self._rest, None
        if rest is not None:  # goes on after the page that is here
            yield from list.__iter__(self)
        yield from map(self._show, self._ask() if rest is None else rest)

    def _bring(self) -> None:
        if not self._is_whole:
            items = list(self._pages())
            self._is_whole = True
            self[:] = items

    def __bool__(self) -> bool:
        return self._is_whole and len(self) > 0 or not self._is_whole

    def __radd__(self, other: list) -> list:
        return [*other, *self]

    def __reduce__(self):
        self._bring()
        return list, (list(self),)


def _of_the_whole(name: str):
    plain = getattr(list, name)

    def method(self, *arguments, **options):
        self._bring()
        return plain(self, *arguments, **options)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method


for _name in (
    "__len__", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__reversed__", "__eq__", "__ne__", "__lt__",
    "__le__", "__gt__", "__ge__", "__add__", "__iadd__", "__mul__", "__rmul__", "__imul__", "__repr__", "append", "extend",
    "insert", "pop", "remove", "clear", "copy", "count", "index", "reverse", "sort",
):  # fmt: skip
    setattr(Listing, _name, _of_the_whole(_name))
