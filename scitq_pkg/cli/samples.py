"""`scitq fetch samples`: the samples of public archives, or of a folder, as a table for batch files and spreadsheets."""

from __future__ import annotations

import csv
import json
import sys

from ..bio.sheet import KINDS
from ..errors import InvalidRequest
from .parser import OneOf, Parser, number

FORMATS = {"csv": ",", "tsv": "\t", "json": "", "jsonl": ""}
SOURCES = ("ena", "sra")


def options(parser: Parser) -> None:
    """Declares the words of the verb."""
    add = parser.add_argument
    add("accession", nargs="*", metavar="ACCESSION", help="projects, samples, experiments, runs; or one folder: s3://lab/reads/")
    add("-i", "--accessions", metavar="FILE", help="a file with accessions, too, one a line (-: standard input)")
    add(
        "-o",
        "--format",
        type=OneOf(FORMATS, "format"),
        default="csv",
        metavar="FORMAT",
        help="|".join(FORMATS) + " (default: csv)",
    )
    add("--from", dest="source", type=OneOf(SOURCES, "archive"), default="ena", metavar="ARCHIVE", help="ena|sra (default: ena)")
    add(
        "--by",
        type=OneOf(KINDS, "kind of row"),
        default="sample",
        metavar="ROW",
        help="a row a sample, or a row a run (default: sample)",
    )
    add("--where", action="append", default=[], metavar="NAME=VALUE", help="such runs only (repeatable): library_layout=PAIRED")
    add("--limit", type=number(1, 10**9), metavar="N", help="the first N rows only")
    add("-L", "--long", action="store_true", help="every column")
    add("-H", "--no-header", action="store_true", help="no header line")


def run(arguments) -> int:
    """Writes the sheet to stdout when all of it is known; the exit code."""
    from ..bio import sheet

    conditions = [_condition(text) for text in arguments.where]
    rows = sheet.rows(sheet.where(_samples(arguments), conditions), arguments.by, arguments.long)[: arguments.limit]
    if arguments.format == "json":
        print(json.dumps(rows, indent=2))
    elif arguments.format == "jsonl":
        for row in rows:
            print(json.dumps(row))
    else:
        out = csv.DictWriter(sys.stdout, list(rows[0]), delimiter=FORMATS[arguments.format], lineterminator="\n")
        if not arguments.no_header:
            out.writeheader()
        out.writerows(rows)
    return 0


def _samples(arguments):
    from ..bio.genetics import ena_get_samples, sra_get_samples, uri_get_samples

    words = [*arguments.accession, *(_listed(arguments.accessions) if arguments.accessions else [])]
    folders = [word for word in words if "/" in word]
    if folders:
        if len(words) > 1:
            raise InvalidRequest(f"{folders[0]} is a folder: give one alone, or accessions")
        return uri_get_samples(folders[0])
    return {"ena": ena_get_samples, "sra": sra_get_samples}[arguments.source](words)


def _listed(path: str) -> list[str]:
    """The accessions of a file, without empty lines and comments. Raises InvalidRequest."""
    try:
        with open(0 if path == "-" else path, encoding="utf-8-sig", closefd=path != "-") as file:
            return [word for line in file for word in line.partition("#")[0].split()]
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None


def _condition(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name.strip() and equals):
        raise InvalidRequest(f"--where {text!r:.60} is no condition: write NAME=VALUE, as library_layout=PAIRED")
    return name.strip(), value.strip()
