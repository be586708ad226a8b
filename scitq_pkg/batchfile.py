"""A YAML file becomes tasks. `batchfile.schema.json` says which keys there are; `bring_in_line` then queues them.

Every task of a file has a name, the same each time the file is read: with its batch it says which task of the server it is.
"""

from __future__ import annotations

import fnmatch
import functools
import graphlib
import json
import os
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from .errors import InvalidRequest, nearest
from .protocol import DEFAULT_BATCH
from .substitution import Row, read_table, substitute

ITEM = "item"  # the column of rows that are plain values
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?|(?:\d+(?:\.\d+)?[dhms])+)")
_YAML_TAG = "tag:yaml.org,2002:"


@dataclass(slots=True)
class BatchFile:
    """What a file asks for. A task is a mapping of TaskSpec's fields; its `require` holds names of this file beside ids."""

    path: str
    batch: str
    tasks: list[dict] = field(default_factory=list)


@functools.cache
def schema() -> dict:
    """The JSON schema of batch files."""
    return json.loads(pkgutil.get_data(__package__, "batchfile.schema.json"))


def load(path: str, batch: str | None = None, workdir: str | None = None) -> BatchFile:
    """The tasks of a file, in its order. Raises InvalidRequest: `file:line: what is wrong`.

    `batch` goes before the one that the file names. `workdir` is the directory of tasks that name none, and where relative ones start.
    """
    top = _mapping(path, _compose(path), {**schema()["properties"], **_task_keys()}, "the file")
    name = _Value(path, "batch", top.pop("batch"), {}).text() if "batch" in top else None
    file = BatchFile(path, batch or name or DEFAULT_BATCH)
    lines: dict[str, int] = {}
    needs: list[tuple[dict, _Value | None]] = []
    for index, keys in enumerate(_templates(path, top), 1):
        for unnamed, row in _rows_of(path, keys, index):
            task, wanted = _task(file, keys, unnamed, row, workdir)
            _check_new(file, task["name"], _line(keys.get("name", keys["command"])), lines)
            file.tasks.append(task)
            needs.append((task, wanted))
    _resolve(file, needs)
    return file


# --- the file's parts ---------------------------------------------------------------------------------------------


def _task_keys() -> dict:
    return schema()["$defs"]["task"]["properties"]


def _compose(path: str) -> yaml.Node:
    """The nodes of a YAML file, with their lines: nothing of it is ever constructed or run."""
    try:
        with open(path, "rb") as file:
            node = yaml.compose(file, Loader=yaml.SafeLoader)
    except OSError as error:
        raise InvalidRequest(f"the batch file {path} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidRequest(f"{path}:{mark.line + 1 if mark else 1}: {' '.join((error.problem or error.context).split())}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise InvalidRequest(f"{path}: this is not YAML text ({getattr(error, 'reason', error)})") from None
    except RecursionError:
        raise InvalidRequest(f"{path}: lists and mappings are nested too deeply") from None
    if node is None:
        raise InvalidRequest(f"{path}: the file is empty: `tasks` or `command` is expected")
    return node


def _mapping(path: str, node: yaml.Node, known: dict, what: str) -> dict[str, yaml.Node]:
    """The keys of a mapping and their nodes; keys written as in `launch` (`run-timeout`) are the same."""
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(path, node, f"{what} must be a mapping of keys such as `command: ...`, not {_kind(node)}")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = str(key.value).replace("-", "_") if isinstance(key, yaml.ScalarNode) else _kind(key)
        if name not in known:
            raise _wrong(path, key, f"unknown key '{name}'{nearest(name, known)}")
        if name in found:
            raise _wrong(path, key, f"'{name}' is given twice")
        found[name] = value
    return found


def _templates(path: str, top: dict[str, yaml.Node]) -> Iterator[dict[str, yaml.Node]]:
    """The keys of each item of `tasks` over the defaults; a file without `tasks` is itself the only one."""
    defaults = _mapping(path, top.pop("defaults"), _task_keys(), "`defaults`") if "defaults" in top else {}
    if "tasks" not in top:
        yield _complete(path, defaults, top, "the file")
        return
    tasks = top.pop("tasks")
    everywhere = top.pop("each", None)
    for name, node in top.items():
        raise _wrong(path, node, f"beside `tasks`, '{name}' belongs under `defaults`")
    if not isinstance(tasks, yaml.SequenceNode) or not tasks.value:
        raise _wrong(path, tasks, f"`tasks` must be a list of tasks, not {_kind(tasks)}")
    if everywhere is not None:
        defaults.setdefault("each", everywhere)
    for node in tasks.value:
        keys = {"command": node} if isinstance(node, yaml.ScalarNode) else _mapping(path, node, _task_keys(), "a task")
        yield _complete(path, defaults, keys, "this task", node)


def _complete(path: str, defaults: dict, keys: dict, what: str, node: yaml.Node | None = None) -> dict[str, yaml.Node]:
    """The keys over the defaults. `env` is merged, the rest replaced."""
    merged = {**defaults, **keys}
    if "env" in defaults and "env" in keys:
        merged["env"] = yaml.MappingNode(keys["env"].tag, _merged_pairs(path, defaults["env"], keys["env"]), keys["env"].start_mark)
    if "command" not in merged:
        where = f"{path}:{_line(node)}" if node else path
        raise InvalidRequest(f"{where}: {what} has no `command`" + ("" if node else " and no `tasks`"))
    return merged


def _merged_pairs(path: str, under: yaml.Node, over: yaml.Node) -> list:
    for node in (under, over):
        if not isinstance(node, yaml.MappingNode):
            raise _wrong(path, node, f"`env` must be a mapping of names to values, not {_kind(node)}")
    given = {key.value for key, _ in over.value}
    return [pair for pair in under.value if pair[0].value not in given] + over.value


def _rows_of(path: str, keys: dict[str, yaml.Node], index: int) -> list[tuple[str, Row]]:
    """The rows of a template, each with the name of a task that has none. Without `each` one row that has only the built-ins."""
    rows = _Value(path, "each", keys["each"], {}).rows() if "each" in keys else None
    base = f"{os.path.splitext(os.path.basename(path))[0]}-{index}"
    if rows is None:
        return [(base, {"row": "1"})]
    firsts = [next(iter(row.values()), "") for row in rows]
    telling = len(set(firsts)) == len(rows)
    return [
        (f"{base}-{first if telling else number}", {"row": str(number), **row})
        for number, (first, row) in enumerate(zip(firsts, rows), 1)
    ]


def _task(file: BatchFile, keys: dict[str, yaml.Node], unnamed: str, row: Row, workdir: str | None) -> tuple[dict, _Value | None]:
    """The task of one row, and the value of its `needs`."""
    row = {"batch": file.batch, **row}
    name = _Value(file.path, "name", keys["name"], row).text() if "name" in keys else None
    row.setdefault("name", name or unnamed)
    task: dict = {"name": name or unnamed, "batch": file.batch}
    for key, node in keys.items():
        if key not in ("name", "each", "needs"):
            value = _Value(file.path, key, node, row).read(_task_keys()[key])
            if value is not None:
                task[key] = value
    if not task.get("command", "").strip():
        raise _wrong(file.path, keys["command"], "the command is empty")
    if workdir is not None:
        task["workdir"] = os.path.normpath(os.path.join(workdir, task.get("workdir", "")))
    return task, _Value(file.path, "needs", keys["needs"], row) if "needs" in keys else None


def _check_new(file: BatchFile, name: str, line: int, lines: dict[str, int]) -> None:
    if name in lines:
        how = "put a column into the name, such as name: count-{sample}" if lines[name] == line else f"the other is at line {lines[name]}"
        raise InvalidRequest(f"{file.path}:{line}: two tasks are named {name!r}: {how}")
    lines[name] = line


def _resolve(file: BatchFile, needs: list[tuple[dict, _Value | None]]) -> None:
    """Puts the names that `needs` stands for into each task's `require`; refuses unknown ones and cycles."""
    names = {task["name"]: None for task in file.tasks}
    matching = functools.cache(lambda pattern: fnmatch.filter(names, pattern))
    graph: dict[str, list[str]] = {}
    for task, wanted in needs:
        found: dict[str, None] = {}
        for text in (wanted.texts() or []) if wanted else []:
            matches = [text] if text in names else [name for name in matching(text) if name != task["name"]]
            if not matches:
                raise wanted.wrong(f"no task of this file is named {text!r}{nearest(text, names)}")
            found.update(dict.fromkeys(matches))
        graph[task["name"]] = list(found)
        if found:
            task["require"] = [*task.get("require", []), *found]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise InvalidRequest(f"{file.path}: tasks need each other in a circle: {' needs '.join(reversed(error.args[1]))}") from None


# --- values ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Value:
    """The value of one key, for one row: a method for each kind that the schema names. None: as if it were not given."""

    path: str
    key: str
    node: yaml.Node
    row: Row

    def read(self, described: dict):
        return getattr(self, described["$ref"].rpartition("/")[2])()

    def wrong(self, message: str) -> InvalidRequest:
        return _wrong(self.path, self.node, message)

    def text(self) -> str | None:
        """As it is written in the file: 007 and 1.10 keep their zeros."""
        if not isinstance(self.node, yaml.ScalarNode):
            hint = ": a value that starts with { needs quotes" if isinstance(self.node, yaml.MappingNode) else ""
            raise self.wrong(f"`{self.key}` must be text, not {_kind(self.node)}{hint}")
        if not self.node.tag.startswith(_YAML_TAG) or "/" in self.node.tag:
            raise self.wrong(f"tags such as {self.node.tag!r} mean nothing here")
        if self.node.tag == _YAML_TAG + "null":
            return None
        try:
            return substitute(self.node.value, self.row)
        except InvalidRequest as error:
            raise self.wrong(error.message) from None

    def texts(self) -> list[str] | None:
        if isinstance(self.node, yaml.SequenceNode):
            values = (_Value(self.path, self.key, node, self.row).text() for node in self.node.value)
            return [value for value in values if value is not None]
        text = self.text()
        return None if text is None else [text]

    def number(self) -> int | None:
        text = self.text()
        if text is None:
            return None
        try:
            return int(text)
        except ValueError:
            raise self.wrong(f"`{self.key}` must be a whole number, not {text!r}") from None

    def numbers(self) -> list[int] | None:
        if isinstance(self.node, yaml.SequenceNode):
            values = (_Value(self.path, self.key, node, self.row).number() for node in self.node.value)
            return [value for value in values if value is not None]
        number = self.number()
        return None if number is None else [number]

    def flag(self) -> bool | None:
        text = self.text()
        if text is None:
            return None
        if text.lower() not in yaml.SafeLoader.bool_values:
            raise self.wrong(f"`{self.key}` must be true or false, not {text!r}")
        return yaml.SafeLoader.bool_values[text.lower()]

    def shell(self) -> str | None:
        text = self.text()
        if text in (None, "sh", "bash"):
            return text
        if text.lower() not in yaml.SafeLoader.bool_values:
            raise self.wrong(f"`{self.key}` must be true, false, sh or bash, not {text!r}")
        return "sh" if yaml.SafeLoader.bool_values[text.lower()] else None

    def duration(self) -> float | None:
        """Seconds."""
        text = self.text()
        if text is None:
            return None
        if not _DURATION.fullmatch(text):
            raise self.wrong(f"`{self.key}` must be a duration such as 90, 90s, 5m, 2h or 1h30m, not {text!r}")
        return sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(r"([\d.]+)([dhms]?)", text))

    def texts_by_name(self) -> dict[str, str]:
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"`{self.key}` must be a mapping of names to values, not {_kind(self.node)}")
        found: dict[str, str] = {}
        for key, node in self.node.value:
            name = _Value(self.path, self.key, key, self.row).text() or ""
            if name in found:
                raise _wrong(self.path, key, f"'{name}' is given twice")
            found[name] = _Value(self.path, f"{self.key}: {name}", node, self.row).text() or ""
        return found

    def rows(self) -> list[Row] | None:
        """Rows that are written here, or of a table whose path is relative to the file."""
        if isinstance(self.node, yaml.SequenceNode):
            if not self.node.value:
                raise self.wrong("`each` has no rows")
            return self._inline_rows(self.node.value)
        if isinstance(self.node, yaml.MappingNode):
            raise self.wrong("`each` must be a list of rows, or the path of a csv or tsv file")
        table = self.text()
        if table is None:
            return None
        try:
            return read_table(os.path.join(os.path.dirname(self.path), table))
        except InvalidRequest as error:
            raise self.wrong(error.message) from None

    def _inline_rows(self, nodes: list[yaml.Node]) -> list[Row]:
        rows: list[Row] = []
        for node in nodes:
            value = _Value(self.path, "each", node, self.row)
            rows.append(value.texts_by_name() if isinstance(node, yaml.MappingNode) else {ITEM: value.text() or ""})
            if rows[-1].keys() != rows[0].keys():
                raise value.wrong(f"this row has the columns {', '.join(rows[-1])}, the first one {', '.join(rows[0])}")
        return rows


def _wrong(path: str, node: yaml.Node, message: str) -> InvalidRequest:
    return InvalidRequest(f"{path}:{_line(node)}: {message}")


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if node.tag == _YAML_TAG + "null" else f"the text {node.value!r:.40}"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
