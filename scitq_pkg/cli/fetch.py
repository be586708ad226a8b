"""`scitq fetch`: moves data between here and anywhere; no server is needed."""

from __future__ import annotations

import gc
import sys

from ..errors import InvalidRequest, nearest
from ..escapes import safe
from ..uris import shown
from . import samples
from .parser import Parser, number

_EPILOG = "URIs: a path, file://, http(s)://, ftp://, s3://...; a final / means all below. docs/fetch.md tells more."


def main(words: list[str]) -> int:
    """Runs `scitq fetch VERB ...`; the exit code."""
    gc.set_threshold(50_000)  # what is imported and listed stays: to look through it again and again took a tenth of the time
    if words[:1] in (["-h"], ["--help"]) or not words:
        (sys.stdout if words else sys.stderr).write(_help())
        return 0 if words else 2
    name = words[0]
    if name not in VERBS:
        raise InvalidRequest(
            f"scitq fetch: unknown verb '{name}'{nearest(name, VERBS)}; there are {', '.join(VERBS)} (-h tells more)"
        )
    declare, run, about = VERBS[name]
    parser = Parser(prog=f"scitq fetch {name}", description=f"{about[0].upper()}{about[1:]}.", epilog=_EPILOG)
    declare(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    parser.add_argument("-v", "--verbose", action="store_true", help="show where an unexpected error came from")
    return run(parser.parse_args(words[1:])) or 0


def parsers() -> dict[str, Parser]:
    """The parser of each verb, for completion."""
    found = {}
    for name, (declare, _, _) in VERBS.items():
        found[name] = Parser(prog=f"scitq fetch {name}")
        declare(found[name])
    return found


def _help() -> str:
    rows = "".join(f"  {name:<8}{about}\n" for name, (_, _, about) in VERBS.items())
    return f"usage: scitq fetch VERB ...\n\nMoves data between here and anywhere.\n\nverbs:\n{rows}\n{_EPILOG}\n"


def _parallel(parser: Parser) -> None:
    parser.add_argument("-p", "--parallel", type=number(1, 1000), metavar="N", help="files at once")


def _include(parser: Parser) -> None:
    parser.add_argument("--include", action="append", default=[], metavar="GLOB", help="only what matches this (repeatable)")


def _get_options(parser: Parser) -> None:
    parser.add_argument("uri", metavar="URI", help="what to fetch; |gunzip, |untar, |unzip, |mv:FOLDER, |only:GLOB may follow")
    parser.add_argument(
        "destination", nargs="?", default=".", metavar="PATH", help="a folder, or the file's name (default: here)"
    )
    _parallel(parser)


def _get(arguments) -> None:
    from ..fetch import get

    get(arguments.uri, arguments.destination, arguments.parallel, not arguments.quiet)


def _put_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="PATH", help="a file, or a folder")
    parser.add_argument("uri", metavar="URI", help="where it shall be")
    _parallel(parser)


def _put(arguments) -> None:
    from ..fetch import put

    put(arguments.source, arguments.uri, arguments.parallel, not arguments.quiet)


def _copy_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a URI or a path; a final / means all below")
    parser.add_argument("destination", nargs="?", default=".", metavar="DESTINATION", help="a URI or a path (default: here)")
    _parallel(parser)


def _copy(arguments) -> None:
    from ..fetch import copy

    copy(arguments.source, arguments.destination, arguments.parallel, not arguments.quiet)


def _sync_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a folder, here or elsewhere")
    parser.add_argument("destination", metavar="DESTINATION", help="a folder, here or elsewhere")
    _include(parser)
    _parallel(parser)


def _sync(arguments) -> None:
    from ..fetch import sync

    count = sync(arguments.source, arguments.destination, arguments.include, arguments.parallel, not arguments.quiet)
    print(f"{count} files were new or different")


def _list_options(parser: Parser) -> None:
    parser.add_argument("uri", metavar="URI", help="a folder")
    parser.add_argument("--md5", action="store_true", help="the md5 of each file, too; where nobody knows it, it is fetched")
    parser.add_argument("-l", "--long", action="store_true", help="sizes and times, too")


def _list(arguments) -> None:
    _show(arguments, no_rec=False)


def _nrlist(arguments) -> None:
    _show(arguments, no_rec=True)


def _show(arguments, no_rec: bool) -> None:
    from ..fetch import list_content

    for entry in list_content(arguments.uri, no_rec, arguments.md5):
        columns = [entry.md5 or "-"] if arguments.md5 else []
        if arguments.long:
            columns += [
                "-" if entry.size is None else str(entry.size),
                entry.modified_at.isoformat() if entry.modified_at else "-",
            ]
        print("\t".join([*columns, safe(entry.path if no_rec else str(entry.uri))]))


def _info_options(parser: Parser) -> None:
    parser.add_argument("uri", metavar="URI", help="a file")
    parser.add_argument("--md5", action="store_true", help="its md5, too; where nobody knows it, it is fetched")


def _info(arguments) -> None:
    from ..fetch import info

    entry = info(arguments.uri, arguments.md5)
    print(f"uri       {safe(str(entry.uri))}\nsize      {'unknown' if entry.size is None else entry.size}")
    for name, value in (
        ("modified", entry.modified_at and entry.modified_at.isoformat()),
        ("md5", entry.md5),
        ("etag", entry.etag),
    ):
        if value:
            print(f"{name:<10}{value}")


def _delete_options(parser: Parser) -> None:
    parser.add_argument("uri", metavar="URI", help="a file, or with a final / all below")
    _include(parser)
    parser.add_argument("-t", "--dry-run", "--dryrun", action="store_true", help="only say what would be deleted")


def _delete(arguments) -> None:
    from ..fetch import delete

    for uri in delete(arguments.uri, arguments.include, arguments.dry_run):
        print(f"{'would delete' if arguments.dry_run else 'deleted'} {safe(shown(uri))}")


VERBS = {
    "get": (_get_options, _get, "fetch a file, or all below a folder"),
    "put": (_put_options, _put, "send a file or a folder"),
    "copy": (_copy_options, _copy, "bring files from anywhere to anywhere"),
    "sync": (_sync_options, _sync, "bring what is new or different from one folder to another"),
    "list": (_list_options, _list, "the files below a folder"),
    "nrlist": (_list_options, _nrlist, "what is directly in a folder, by names relative to it"),
    "info": (_info_options, _info, "what is known of a file"),
    "delete": (_delete_options, _delete, "delete a file, or all below a folder"),
    "samples": (samples.options, samples.run, "write a table of the samples of public archives, or of a folder"),
}
