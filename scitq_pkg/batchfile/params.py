"""Parameters: what a file lets its user choose, with types, and what was chosen by `--set NAME=VALUE`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import yaml

from ..durations import EXAMPLES, seconds_of
from ..errors import InvalidRequest, nearest
from ..yamlvalues import Value, line_of, mapping, wrong_at
from .model import BUILT_IN, schema

_NAME = re.compile(r"[A-Za-z_][\w-]*")
_TRUTH = yaml.SafeLoader.bool_values


@dataclass(slots=True)
class Params:
    """The value of each parameter, and the line on which it stands."""

    values: dict[str, str]
    lines: dict[str, int]


def read(path: str, node: yaml.Node | None, given: Mapping[str, object] | None = None) -> Params:
    """The parameters of a file with the values that were given.

    Raises InvalidRequest with the line, or with `--set NAME=VALUE`.
    """
    declared = Value(path, "params", node, {}).pairs() if node is not None else {}
    params = Params({}, {name: line_of(key) for name, (key, _) in declared.items()})
    for name, value in (given or {}).items():
        if name not in declared:
            has = f"there are {', '.join(declared)}" if declared else f"{path} has no `params`"
            raise InvalidRequest(f"--set {name}={_text(value)}: no parameter is named '{name}'{nearest(name, declared)}: {has}")
    for name, (key, about) in declared.items():
        _check_name(path, key, name)
        described = _described(path, name, about)
        params.values[name] = _value(path, name, key, described, given or {})
    return params


def _check_name(path: str, key: yaml.Node, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise wrong_at(path, key, f"{name!r} cannot name a parameter: letters, digits, _ and - are expected")
    if name in BUILT_IN:
        raise wrong_at(path, key, f"a parameter cannot be named '{name}': {{{name}}} is built in")


def _described(path: str, name: str, node: yaml.Node) -> dict[str, Value]:
    """`default`, `type`, `choices` and `help`; a plain value is the default."""
    if not isinstance(node, yaml.MappingNode):
        return {"default": Value(path, name, node, {})}
    found = mapping(path, node, schema()["$defs"]["param"]["properties"], f"the parameter '{name}'")
    return {key: Value(path, f"{name}: {key}", value, {}) for key, value in found.items()}


def _value(path: str, name: str, key: yaml.Node, described: dict[str, Value], given: Mapping[str, object]) -> str:
    """What was given, or the default, if its type and the choices allow it. Both are checked."""
    kind = (described["type"].text() if "type" in described else None) or "text"
    if kind not in _KINDS:
        raise described["type"].wrong(f"no parameter is of the type '{kind}'{nearest(kind, _KINDS)}: {', '.join(_KINDS)}")
    choices = described["choices"].texts() if "choices" in described else None
    default = described["default"].text() if "default" in described else None
    if default is not None:
        try:
            default = _checked(default, kind, choices, os.path.dirname(path))
        except InvalidRequest as error:
            raise described["default"].wrong(f"the default of '{name}' {error.message}") from None
    if name in given:
        text = _text(given[name])
        try:
            return _checked(text, kind, choices, "")
        except InvalidRequest as error:
            raise InvalidRequest(f"--set {name}={text}: '{name}' {error.message} ({path}:{line_of(key)})") from None
    if default is None:
        told = f" ({text})" if "help" in described and (text := described["help"].text()) else ""
        raise wrong_at(path, key, f"the parameter '{name}'{told} has no default: give it, as --set {name}=...")
    return default


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(text: str, kind: str, choices: list[str] | None, folder: str) -> str:
    """The value as it goes into texts; `folder` is where relative paths start. Raises InvalidRequest: what it must be."""
    if choices and text not in choices:
        raise InvalidRequest(f"must be one of {', '.join(choices)}, not {text!r:.100}{nearest(text, choices)}")
    check, expected = _KINDS[kind]
    if not check(text):
        raise InvalidRequest(f"must be {expected}, not {text!r:.100}")
    if kind == "path":
        return os.path.abspath(os.path.join(folder, os.path.expanduser(text))) + ("/" if text.endswith("/") else "")
    return str(_TRUTH[text.lower()]).lower() if kind == "bool" else text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


_KINDS: dict[str, tuple[Callable[[str], object], str]] = {
    "text": (lambda text: True, "text"),
    "int": (re.compile(r"[+-]?[0-9]+").fullmatch, "a whole number"),
    "float": (_is_number, "a number"),
    "bool": (lambda text: text.lower() in _TRUTH, "true or false"),
    "path": (lambda text: text.strip() and "://" not in text, "the path of a file or folder"),
    "uri": (re.compile(r"[\w+.@ -]+://\S.*").fullmatch, "a URI such as s3://bucket/folder/"),
    "duration": (lambda text: seconds_of(text) is not None, f"a duration such as {EXAMPLES}"),
}
