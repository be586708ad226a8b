"""The verbs of `scitq manage task` that change tasks: each shows what it will do before it does."""

from __future__ import annotations

import difflib
import itertools
import re
import sys
from argparse import SUPPRESS
from collections.abc import Callable

from ...errors import InvalidRequest, nearest
from ...escapes import colored
from ...lib import RESET, Server
from ...lib.objects import LONGEST_QUERY
from ...protocol import RUNNING
from ...uris import uris
from ..options import duration, pair, whole_number
from ..parser import OneOf, Parser
from . import selection, tables
from .verbs import Verb

_SIGNALS = ("suspend", "resume", "term", "kill")
_NUMBERS = ("uid", "gid", "priority", "retry")
_TIMES = ("download_timeout", "run_timeout")
_LISTS = ("input", "resource", "require", "env")
_TEXTS = ("command", "name", "batch", "container", "container_options", "output", "workdir")
_CHOICES = {"shell": ("sh", "bash"), "use_cache": ("yes", "no")}
FIELDS = (*_TEXTS, *_LISTS, *_NUMBERS, *_TIMES, *_CHOICES)
_MOST_TOLD = 300  # characters about new values in a question
_HEADER_LINES = 3  # of a unified difference: two names and the first place
_RED, _GREEN, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"


def value_of(name: str, texts: list[str]):
    """The value of a field of a task from the words of the command line; an empty one sets it back. Raises InvalidRequest."""
    option = f"--{name.replace('_', '-')}"
    if texts == [""] and name != "command":
        return RESET
    if name == "env":
        return dict(pair(text, option) for text in texts)
    if name == "require":
        return [whole_number(word, option, 1) for text in texts for word in text.replace(",", " ").split()]
    if name in ("input", "resource"):
        return [uri for text in texts for uri in uris(text)]
    if len(texts) > 1:
        raise InvalidRequest(f"{option} is given twice")
    if name in _NUMBERS:
        return whole_number(texts[0], option, None if name == "priority" else 0)
    if name in _TIMES:
        return duration(texts[0], option)
    if name in _CHOICES and texts[0] not in _CHOICES[name]:
        raise InvalidRequest(
            f"{option} cannot be {texts[0]!r:.60}{nearest(texts[0], _CHOICES[name])}: {' or '.join(_CHOICES[name])}"
        )
    return texts[0] == "yes" if name == "use_cache" else texts[0]


# --- relaunch, cancel, delete, signal -------------------------------------------------------------------------------------


def _options(parser: Parser) -> None:
    selection.add_filters(parser)
    selection.add_yes(parser)


def _relaunch(server: Server, arguments) -> int:
    return selection.change("relaunch", server.tasks_relaunch, arguments)


def _cancel(server: Server, arguments) -> int:
    return selection.change("cancel", server.tasks_cancel, arguments, _running(server, arguments))


def _delete(server: Server, arguments) -> int:
    return selection.change("delete", server.tasks_delete, arguments, _running(server, arguments))


def _running(server: Server, arguments) -> str:
    """`, 3 running`: what would be stopped."""
    wanted = selection.filters(arguments)
    if not wanted or len(wanted.get("ids", "")) > LONGEST_QUERY:
        return ""
    count = server.counts(**wanted)["counts"].get(RUNNING, 0)
    return f", {count} running" if count else ""


def _signal_options(parser: Parser) -> None:
    parser.add_argument("action", type=OneOf(_SIGNALS, "action"), metavar="ACTION", help="|".join(_SIGNALS))
    _options(parser)


def _signal(server: Server, arguments) -> int:
    return selection.change(arguments.action, server.tasks_signal, arguments, action=arguments.action)


# --- update: some tasks get new properties ------------------------------------------------------------------------------


def _update_options(parser: Parser) -> None:
    selection.add_ids_and_name(parser)
    add = parser.add_argument_group("what is changed (an empty value sets back to the default)").add_argument
    for names, key, value, about in (
        ("-c --command", "command", "COMMAND", "the command"),
        ("-N --new-name", "name", "NAME", "the name"),
        ("-b --batch", "batch", "BATCH", "the batch"),
        ("-d --container --docker", "container", "IMAGE", "the image it runs in"),
        ("-O --container-options --option", "container_options", "OPTIONS", "more options for the container, as one word"),
        ("-j --input", "input", "URI", "what is fetched into $INPUT (repeatable)"),
        ("-r --resource", "resource", "URI", "what is fetched once per worker (repeatable)"),
        ("-o --output", "output", "URI", "where $OUTPUT is copied to"),
        ("-R --require --requirements", "require", "ID", "the tasks that must succeed first (repeatable, or 3,5)"),
        ("-u --uid", "uid", "UID", "the user that runs it (a number)"),
        ("-g --gid", "gid", "GID", "the group that runs it (a number)"),
        ("--env", "env", "KEY=VALUE", "its variables, all of them (repeatable)"),
        ("--workdir", "workdir", "DIRECTORY", "where it runs, on the worker"),
        ("--retry", "retry", "N", "failures that are tried again"),
        ("--priority", "priority", "N", "higher ones go first"),
        ("--download-timeout", "download_timeout", "TIME", "the longest its inputs may take"),
        ("--run-timeout", "run_timeout", "TIME", "the longest its command may take"),
        ("--use-cache", "use_cache", "yes|no", "whether results of an equal task are taken"),
    ):
        add(*names.split(), dest=f"new_{key}", action="append", metavar=value, help=about, default=SUPPRESS)
    shell = "the shell that runs it: sh unless --shell=bash"
    add("--shell", dest="new_shell", action="append", nargs="?", const="sh", metavar="sh|bash", help=shell, default=SUPPRESS)
    _add_unset_and_relaunch(add)
    selection.add_yes(parser)


def _add_unset_and_relaunch(add: Callable) -> None:
    add(
        "--unset",
        action="append",
        default=[],
        metavar="FIELD",
        help="set this back to its default, as an empty value does (repeatable)",
    )
    add("--relaunch", action="store_true", help="queue the ended ones again")


def _update(server: Server, arguments) -> int:
    given = {key[4:]: value for key, value in vars(arguments).items() if key.startswith("new_")}
    changed = _with_unset({name: value_of(name, texts) for name, texts in given.items()}, arguments.unset)
    if not changed and not arguments.relaunch:
        raise InvalidRequest("update changes nothing: give at least one property (-h lists them)")
    body = {"relaunch": arguments.relaunch} | ({"set": changed} if changed else {})
    return selection.change("update", server.tasks_edit, arguments, _how(changed, arguments.relaunch), **body)


def _how(changed: dict, relaunch: bool) -> str:
    """`: retry=3, name back to its default; queued again`."""
    parts = [
        f"{name} back to its default" if value is RESET else f"{name}={tables.plain(value)}" for name, value in changed.items()
    ]
    told = tables.safe(", ".join(parts))
    told = told if len(told) <= _MOST_TOLD else told[: _MOST_TOLD - 1] + "…"
    return (f": {told}" if told else "") + (", and queue again what has ended" if relaunch else "")


# --- edit: many tasks at once, with a diff --------------------------------------------------------------------------------


def _edit_options(parser: Parser) -> None:
    selection.add_filters(parser)
    add = parser.add_argument_group("what is changed").add_argument
    add(
        "--sub",
        metavar="s/OLD/NEW/",
        help="replace a Python regular expression in each command; s/OLD/NEW/g: everywhere in it, i: any case",
    )
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="set a field (repeatable): " + ", ".join(FIELDS))
    _add_unset_and_relaunch(add)
    selection.add_yes(parser)


def _edit(server: Server, arguments) -> int:
    body: dict = {"relaunch": arguments.relaunch}
    if arguments.sub is not None:
        body["sub"] = substitution(arguments.sub)
    if changed := _with_unset(fields_of(arguments.set), arguments.unset):
        body["set"] = changed
    if len(body) == 1:
        raise InvalidRequest("edit changes nothing: give --sub 's/OLD/NEW/', --set FIELD=VALUE or --unset FIELD")
    none = "no task passes the filter and has a command that this changes"
    how = _how(changed, arguments.relaunch)
    return selection.change("edit", server.tasks_edit, arguments, how, _show_changes, none, **body)


def fields_of(words: list[str]) -> dict:
    """The fields that several FIELD=VALUE mean. Raises InvalidRequest."""
    texts: dict[str, list[str]] = {}
    for word in words:
        name, text = pair(word, "--set")
        texts.setdefault(_field(name, "--set"), []).append(text)
    return {name: value_of(name, found) for name, found in texts.items()}


def _with_unset(changed: dict, words: list[str]) -> dict:
    """The changes, and those that set something back. Raises InvalidRequest for a field that is in both."""
    unset = [_field(word, "--unset") for text in words for word in text.split(",")]
    for name in unset:
        if name in changed:
            raise InvalidRequest(f"{name} cannot be given a value and set back at once", field="--unset")
    return changed | dict.fromkeys(unset, RESET)


def _field(word: str, option: str) -> str:
    name = word.strip().replace("-", "_")
    if name not in FIELDS:
        raise InvalidRequest(f"a task has no field '{name}'{nearest(name, FIELDS)}; there are {', '.join(FIELDS)}", field=option)
    return name


def substitution(text: str) -> tuple[str, str, int]:
    """Pattern, replacement and count (0: all) of `s/OLD/NEW/`, as sed reads it: any sign may be in the place of `/`.

    The pattern and the replacement are Python's (`\\1`, `\\g<0>`). Raises InvalidRequest.
    """
    mark = text[1:2]
    part = rf"(?:\\.|[^\\{re.escape(mark)}])"
    found = None
    if mark and not mark.isalnum() and not mark.isspace() and mark != "\\":
        found = re.fullmatch(rf"s{re.escape(mark)}({part}+){re.escape(mark)}({part}*){re.escape(mark)}([gi]*)", text, re.DOTALL)
    if found is None:
        raise InvalidRequest(f"--sub wants s/OLD/NEW/ (then g for everywhere, i for any case), not {text!r:.80}")
    pattern, replacement = _unmarked(found[1], mark, re.escape(mark)), _unmarked(found[2], mark, mark)
    return ("(?i)" if "i" in found[3] else "") + pattern, replacement, 0 if "g" in found[3] else 1


def _unmarked(part: str, mark: str, itself: str) -> str:
    """With the sign itself where a backslash is before it."""
    return re.sub(r"\\(.)", lambda pair: itself if pair[1] == mark else pair[0], part, flags=re.DOTALL)


def _show_changes(answer: dict) -> None:
    """What changes in each command; of a script the lines that change, and their neighbours."""
    colours = {"-": _RED, "+": _GREEN} if colored(sys.stdout) else {}
    for one in answer.get("changes", ()):
        print(f"task {one['id']}")
        lines = difflib.unified_diff(one["before"].split("\n"), one["after"].split("\n"), n=1, lineterm="")
        for line in itertools.islice(lines, _HEADER_LINES, None):
            if line.startswith("@@"):
                print("  ...")
            else:
                colour = colours.get(line[0], "")
                print(f"{colour}{line[0]} {tables.safe(line[1:])}{_PLAIN if colour else ''}")


VERBS = (
    Verb("task", "relaunch", "queue ended tasks again", _options, _relaunch),
    Verb("task", "cancel", "take tasks out of the queue; running ones are stopped", _options, _cancel),
    Verb("task", "delete", "forget tasks and their output; running ones are stopped first", _options, _delete),
    Verb("task", "signal", "suspend, resume, term or kill what runs", _signal_options, _signal),
    Verb("task", "update", "give tasks new properties", _update_options, _update),
    Verb("task", "edit", "change many tasks at once, after a look at each difference", _edit_options, _edit),
)
