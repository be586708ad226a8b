"""What a server would refuse of a task is told when the file is read, with its line."""

from __future__ import annotations

from collections.abc import Mapping

from ..limits import MAX_INT, MAX_LINE, MAX_NAME, MAX_SECONDS, is_variable, line_fault, number_fault, text_fault
from ..uris import is_only_shown

_LINES = {"name": MAX_NAME, "batch": MAX_NAME, "container": MAX_LINE, "container_options": MAX_LINE, "workdir": MAX_LINE}
_NUMBERS = {"uid": 0, "gid": 0, "retry": 0, "priority": -MAX_INT}  # and the least of each
_DURATIONS = ("download_timeout", "run_timeout")


def fault(key: str, value) -> str | None:
    """What is wrong with the value of a key of a task, or None."""
    if key == "command":
        return text_fault(value)
    if key in _LINES:
        return "is empty" if not value else line_fault(value, _LINES[key])
    if key in _NUMBERS:
        return number_fault(value, _NUMBERS[key])
    if key in _DURATIONS:
        return number_fault(value, 0, MAX_SECONDS)
    if key in ("input", "resource", "output"):
        return next((found for uri in ([value] if isinstance(value, str) else value) if (found := _uri_fault(uri))), None)
    if key == "require":
        return next((f"holds {one}, which is no id of a task" for one in value if not 0 < one <= MAX_INT), None)
    return _variable_fault(value) if key == "env" else None


def _uri_fault(uri: str) -> str | None:
    if not uri:
        return "holds an empty URI"
    if is_only_shown(uri):
        return "has ... where the server leaves passwords and signatures out: give the whole URI"
    return line_fault(uri)


def _variable_fault(variables: Mapping[str, str]) -> str | None:
    for name, text in variables.items():
        if not is_variable(name):
            return f"holds {name!r:.60}, which is no name of a variable"
        if found := text_fault(text):
            return f"{name} {found}"
    return None
