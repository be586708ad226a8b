"""The keys of a provider in the configuration: known ones, of the right kind."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidRequest, nearest

_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list of texts",
    dict: "a mapping",
}


def checked(name: str, config: Mapping, kinds: Mapping[str, type]) -> Mapping:
    """The configuration of the provider `name`, whose keys may be those of `kinds`. Raises InvalidRequest."""
    for key, value in config.items():
        field = f"providers.{name}.{key}"
        if key not in kinds:
            raise InvalidRequest(f"there is no such key{nearest(str(key), kinds)}: there are {', '.join(kinds)}", field=field)
        if value is not None and not _fits(value, kinds[key]):
            raise InvalidRequest(f"{_WORDS[kinds[key]]} is needed, not {value!r:.80}", field=field)
    return config


def texts(value: str | list | None) -> list[str]:
    """One text or several, as a list."""
    return [value] if isinstance(value, str) else list(value or ())


def number(name: str, key: str, value) -> float:
    """A number that is not negative. Raises InvalidRequest."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise InvalidRequest(f"a number that is not negative is needed, not {value!r:.80}", field=f"providers.{name}.{key}")


def _fits(value, kind: type) -> bool:
    if kind is list:
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else Mapping if kind is dict else kind)
