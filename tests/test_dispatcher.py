"""The one door of the program: which command, and how errors reach a user."""

import ast
import os
import subprocess
import sys
import textwrap

import pytest
from scitq import cli

BEHAVIOURS = """
import os, signal, sys
from scitq.errors import Conflict

def main(arguments):
    what = arguments[0]
    if what == "crash":
        return {}["no such key"]
    if what == "refuse":
        raise Conflict("the batch\\nis stopped")
    if what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    if what == "exit":
        sys.exit(int(arguments[1]))
    if what == "words":
        sys.exit("this is why")
    if what == "missing":
        import a_package_that_nobody_has
    if what == "write":
        sys.stdout.write("x" * 1_000_000)
    if what == "broken":
        raise BrokenPipeError(32, "Broken pipe")
"""


@pytest.fixture
def scitq(tmp_path):
    """Runs the real program with one command more, `try`, which misbehaves as its word says."""
    (tmp_path / "behaviours.py").write_text(BEHAVIOURS)
    start = "import sys; from scitq import cli; cli.COMMANDS['try'] = ('behaviours', 'misbehave'); sys.exit(cli.main())"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "SCITQ_CACHE": str(tmp_path / "cache")}
    env.pop("SCITQ_DEBUG", None)

    def run(*words, stdout=subprocess.PIPE):
        return subprocess.run(
            [sys.executable, "-c", start, *words], env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=30
        )

    return run


def test_no_words_is_a_usage_error(scitq):
    done = scitq()
    assert done.returncode == 2 and done.stderr.startswith("usage: scitq") and done.stdout == ""


def test_help_lists_what_people_use(scitq):
    done = scitq("-h")
    assert done.returncode == 0
    for name in ("server", "worker", "launch", "manage", "run", "completion"):
        assert f"\n  {name} " in done.stdout
    assert "keeper" not in done.stdout


@pytest.mark.parametrize("words", [["--version"], ["worker", "--version"], ["-v", "--version"]], ids=" ".join)
def test_version(scitq, words):
    from scitq import __version__

    done = scitq(*words)
    assert (done.returncode, done.stdout) == (0, f"scitq {__version__}\n")


@pytest.mark.parametrize("word, nearest", [("lanuch", "launch"), ("servr", "server"), ("wrker", "worker")])
def test_an_unknown_command_names_the_nearest(scitq, word, nearest):
    done = scitq(word)
    assert done.returncode == 2
    assert done.stderr == f"scitq: unknown command '{word}' (did you mean '{nearest}'?); scitq -h lists them\n"


def test_an_unknown_option_is_a_usage_error(scitq):
    done = scitq("--sever")
    assert done.returncode == 2 and done.stderr.startswith("scitq: unknown option '--sever'")


def test_errors_of_ours_are_one_line_and_their_code(scitq):
    done = scitq("try", "refuse")
    assert (done.returncode, done.stderr) == (1, "scitq: the batch is stopped\n")


def test_errors_do_not_order_a_terminal(capsys):
    assert cli.main(["a\x1b[2J\u202e\nb"]) == 2
    assert capsys.readouterr().err.startswith("scitq: unknown command 'a\\x1b[2J\\u202e b'")


def test_a_path_that_is_too_long_is_told(capsys, tmp_path):
    assert cli.main(["manage", "db", "check", str(tmp_path / ("x" * 300))]) == 2
    told = capsys.readouterr().err
    assert told.startswith("scitq: File name too long: ") and len(told) < 200


def test_an_unexpected_error_is_one_line_and_its_traceback_a_file(scitq, tmp_path):
    done = scitq("try", "crash")
    (path,) = (tmp_path / "cache" / "errors").iterdir()
    assert done.returncode == 1
    assert done.stderr == f"scitq: unexpected KeyError: 'no such key' (the traceback is in {path})\n"
    assert "behaviours.py" in path.read_text()


def test_the_traceback_is_shown_on_request(scitq, tmp_path):
    done = scitq("-v", "try", "crash")
    assert done.returncode == 1 and done.stderr.startswith("Traceback")
    assert not (tmp_path / "cache").exists()


def test_only_the_newest_tracebacks_are_kept(scitq, tmp_path):
    folder = tmp_path / "cache" / "errors"
    folder.mkdir(parents=True)
    for n in range(40):
        (folder / f"20200101-0000{n:02}-1.txt").touch()
    scitq("try", "crash")
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 20 and not names[-1].startswith("2020")


def test_a_missing_package_says_what_to_do(scitq):
    done = scitq("try", "missing")
    assert done.returncode == 1
    assert done.stderr.startswith("scitq: the Python package 'a_package_that_nobody_has' is not installed here: pip install it")


def test_interrupted(scitq):
    done = scitq("try", "interrupt")
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("code", [0, 2, 10])
def test_exit_codes_of_commands_pass(scitq, code):
    assert scitq("try", "exit", str(code)).returncode == code


def test_last_words_of_a_command(scitq):
    done = scitq("try", "words")
    assert (done.returncode, done.stderr) == (1, "scitq: this is why\n")


def test_a_reader_that_goes_away_is_no_error(scitq):
    reader, writer = os.pipe()
    os.close(reader)
    done = scitq("try", "write", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_broken_connection_is_not_taken_for_a_reader_that_went_away(scitq):
    done = scitq("try", "broken")
    assert done.returncode == 1 and "unexpected BrokenPipeError" in done.stderr


def test_output_on_a_full_disk_is_told(scitq):
    with open("/dev/full", "w") as full:
        done = scitq("-h", stdout=full)
    assert (done.returncode, done.stderr) == (
        1,
        "scitq: No space left on device: make room for what it writes (output, data, cache) and try again\n",
    )


def test_closed_streams_do_not_become_files_of_ours(tmp_path):
    script = f"""
        import os, sys
        from scitq import cli
        code = cli.main(["completion", "bash"])
        found = [os.open(os.devnull, os.O_RDONLY), code, *map(os.get_inheritable, range(3))]
        open({str(tmp_path / "told")!r}, "w").write(str(found))
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(words, env=env, timeout=60).returncode == 0
    number, *others = ast.literal_eval((tmp_path / "told").read_text())
    assert number > 2 and others == [0, True, True, True]


def test_called_by_the_name_of_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/scitq-lanch", "true"])
    assert cli.main() == 2
    assert "unknown command 'lanch'" in capsys.readouterr().err
