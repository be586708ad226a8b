"""The keys of the configuration's mappings: known ones, of the right kind. Every error names the key, and says what is right."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidRequest, nearest

Kind = type | tuple[type, float]  # of a value; with a number: its least. `object`: looked at elsewhere
_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list of texts",
    dict: "a mapping",
}


def checked(at: str, given: Mapping, kinds: Mapping[str, Kind]) -> Mapping:
    """What is given at this place of the configuration (`providers.ovh`), whose keys may be those of `kinds`.

    Raises InvalidRequest.
    """
    for key, value in given.items():
        if key not in kinds:
            raise InvalidRequest(
                f"there is no such key{nearest(str(key), kinds)}: there are {', '.join(kinds)}", field=f"{at}.{key}"
            )
        if value is not None and not _fits(value, kinds[key]):
            raise InvalidRequest(f"{_words(kinds[key])} is needed, not {value!r:.80}", field=f"{at}.{key}")
    return given


def texts(value: str | list | None) -> list[str]:
    """One text or several, as a list."""
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _words(kind: Kind) -> str:
    if isinstance(kind, type):
        return _WORDS[kind]
    return f"{_WORDS[kind[0]]} {f'of {kind[1]:g} or more' if kind[1] else 'that is not negative'}"


def _fits(value: object, kind: Kind) -> bool:
    if isinstance(kind, tuple):
        return _fits(value, kind[0]) and kind[1] <= value < float("inf")
    if kind is list:
        return isinstance(value, str) or (isinstance(value, list) and all(map(_is_text, value)))
    if isinstance(value, bool) and kind is not object:
        return kind is bool
    return isinstance(value, (int, float) if kind is float else Mapping if kind is dict else kind)


def _is_text(value: object) -> bool:
    """A number is a text too: nobody quotes the 22 of `-p 22`."""
    return isinstance(value, (str, int)) and not isinstance(value, bool)
