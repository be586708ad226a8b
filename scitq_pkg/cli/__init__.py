"""The one door of the program: chooses the sub-command, and turns whatever goes wrong into one line and an exit code.

`scitq launch` runs in shell loops, so nothing is imported here that it does not need.
"""

from __future__ import annotations

import errno
import os
import sys

from .. import __version__

COMMANDS = {
    "server": (".server", "remember everything, decide, answer: the API"),
    "worker": (".worker", "run tasks on this machine for a server"),
    "launch": (".launch", "queue a command"),
    "manage": (".manage", "look at and change tasks, workers, batches..."),
    "fetch": (".fetch", "move data between here and anywhere"),
    "run": (".run", "a server, a worker and a batch file or command in one, here and now"),
    "completion": (".completion", "print the completion script for bash, zsh or fish"),
    "courier": ("..courier", ""),  # started by a worker only: moves its data
    "keeper": ("..keeper", ""),  # started by a worker only: owns its processes
    "rewrite": ("..rewriting", ""),  # started by a server only: replaces in commands
    "cloud": ("..cloud.agent", ""),  # started by a server only: asks a provider
}
LONG_LIVED = ("server", "worker", "run", "keeper")
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Runs `scitq WORDS...` (by default this process's own words); the exit code. No traceback is written to the terminal."""
    words = _own_words() if argv is None else list(argv)
    _open_what_is_closed()
    try:
        code = _run(words)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        _flush()
        return code
    except KeyboardInterrupt:
        if argv is None:
            _leave_at_once()
        return INTERRUPTED
    except BrokenPipeError as error:
        return 0 if reader_is_gone() else _failed(error, words)
    except Exception as error:
        return _failed(error, words)
    finally:
        _forget_output_that_cannot_be_written()


def _open_what_is_closed() -> None:
    """Whoever started us may have closed what should be 0, 1 or 2: no file or socket of ours may get that number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def _own_words() -> list[str]:
    """The words of this process; called as `scitq-launch`, the name gives the first."""
    name = os.path.basename(sys.argv[0]).partition(".")[0]
    first = [name[len("scitq-"):]] if name.startswith("scitq-") else []
    return first + sys.argv[1:]


def _run(words: list[str]) -> int:
    while words and words[0] in ("-v", "--verbose"):
        os.environ["SCITQ_DEBUG"] = "1"
        words = words[1:]
    if not words:
        sys.stderr.write(_help())
        return 2
    name, arguments = words[0], words[1:]
    if name in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if name == "--version" or (name in COMMANDS and arguments[:1] == ["--version"]):
        sys.stdout.write(f"scitq {__version__}\n")
        return 0
    return _run_command(name, arguments)


def _run_command(name: str, arguments: list[str]) -> int:
    module = _module(name)
    if name in LONG_LIVED and arguments[:1] not in (["-h"], ["--help"]):
        from ..program import settle

        settle([name, *arguments])
    try:
        return _import(module).main(arguments) or 0
    except SystemExit as end:
        return _code(end)


def _module(name: str) -> str:
    if name in COMMANDS:
        return COMMANDS[name][0]
    from ..errors import InvalidRequest, nearest

    kind = "option" if name.startswith("-") else "command"
    raise InvalidRequest(f"unknown {kind} '{name}'{nearest(name, _shown())}; scitq -h lists them")


def _import(module: str):
    from importlib import import_module

    return import_module(module, __package__)


def _code(end: SystemExit) -> int:
    if isinstance(end.code, str):
        print(f"scitq: {end.code}", file=sys.stderr)
        return 1
    return end.code or 0


def _shown() -> list[str]:
    return [name for name, (_, about) in COMMANDS.items() if about]


def _help() -> str:
    rows = "".join(f"  {name:<12}{COMMANDS[name][1]}\n" for name in _shown())
    return (
        f"usage: scitq [-h] [--version] [-v] COMMAND ...\n\nA distributed task queue for scientists.\n\ncommands:\n{rows}\n"
        "scitq COMMAND -h tells more about each.\n"
        "-v before the command shows where an unexpected error came from.\n"
    )


def _flush() -> None:
    """Here, where an output that cannot be written can still be told."""
    if _has_output():
        sys.stdout.flush()


def _has_output() -> bool:
    return not sys.stdout.closed


def reader_is_gone() -> bool:
    """Whether the broken pipe is our own output (`scitq ... | head`), and not a connection that nobody caught."""
    import select

    if not _has_output():
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _forget_output_that_cannot_be_written() -> None:
    """Python would try once more when it ends, and then write a traceback."""
    try:
        if _has_output():
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave_at_once() -> None:
    """A thread may be writing to somebody who has stopped reading: the interpreter would wait for it, or abort."""
    if sys.stderr is not None:
        sys.stderr.flush()
    os._exit(INTERRUPTED)


def _failed(error: Exception, words: list[str]) -> int:
    """Tells the error in one line on stderr; returns the exit code."""
    from ..errors import ScitqError

    verbose = bool(os.environ.get("SCITQ_DEBUG")) or "-v" in words or "--verbose" in words
    if isinstance(error, ScitqError):
        return _tell(str(error), error.exit_code)
    if isinstance(error, ImportError) and _is_from_outside(error):
        return _tell(_what_is_missing(error), 1)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = error.filename or "what it writes (output, data, cache)"
        return _tell(f"{error.strerror}: make room for {what} and try again", 1)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return _tell(f"{error.strerror}: {error.filename!r:.100}", 2)
    return _tell(f"unexpected {type(error).__name__}: {error} ({_traceback(error, verbose)})", 1)


def _tell(sentence: str, exit_code: int) -> int:
    from ..escapes import safe
    from ..uris import shown

    if sys.stderr is not None:
        print(f"scitq: {safe(shown(sentence).replace(chr(10), ' '))}", file=sys.stderr)
    return exit_code


def _is_from_outside(error: ImportError) -> bool:
    """Whether what could not be imported is a package that this one needs, not a part of this one."""
    return error.name is None or error.name.partition(".")[0] != __package__.partition(".")[0]


def _what_is_missing(error: ImportError) -> str:
    if not str(error).startswith("No module named"):
        return str(error)
    hint = "pip install it, or use the one file (python3 build_zipapp.py)"
    return f"the Python package '{error.name}' is not installed here: {hint}"


def _traceback(error: Exception, verbose: bool) -> str:
    """Shows the traceback, or writes it to a file of the cache; says where it is."""
    import traceback

    from ..uris import shown

    text = shown("".join(traceback.format_exception(error)))
    if verbose:
        sys.stderr.write(text)
        return "the traceback is above"
    path = _written(text)
    return f"the traceback is in {path}" if path else "SCITQ_DEBUG=1 shows where"


def _written(text: str) -> str | None:
    """The path of the file that now holds `text`; None where no cache takes it. The newest 20 are kept."""
    from time import strftime

    from ..cache import cache_folders

    for cache in cache_folders():
        folder = os.path.join(cache, "errors")
        path = os.path.join(folder, f"{strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt")
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            for old in sorted(os.listdir(folder))[:-19]:
                os.unlink(os.path.join(folder, old))
            with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return path
        except OSError:
            continue  # full or read-only: the next one may do
    return None
