"""Promise 16: output is complete up to the cap, in order, byte for byte; beyond it a line says what is missing."""

from __future__ import annotations

import random
import re
import subprocess
import time

import pytest
from env import PROGRAM, Env
from scitq.protocol import OUTPUT_CAP_BYTES

HALF = OUTPUT_CAP_BYTES // 2


def numbered(size: int) -> bytes:
    """Bytes that tell where they are: lines of 16, cut at `size`."""
    return b"".join(b"%015d\n" % line for line in range(-(-size // 16)))[:size]


def writes(size: int, stream: str) -> str:
    """Python that writes the same to a stream."""
    parts = f"range(0, {-(-size // 16)}, 65536)"
    part = f"b''.join(b'%015d\\n' % line for line in range(start, start + 65536))[:{size} - 16 * start]"
    return f"for start in {parts}: sys.{stream}.buffer.write({part})"


def raw(env: Env, *words: object) -> tuple[bytes, bytes]:
    """What a command of the program writes to stdout and stderr."""
    command = [*PROGRAM, *map(str, words)]
    done = subprocess.run(command, env=env.variables, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    return done.stdout, done.stderr


def check_both_ends(found: bytes, everything: bytes) -> None:
    """What is there is where it belongs, each gap is told with its length, and both ends are long enough."""
    pieces, position = re.split(rb"\n\[scitq: (\d+) bytes of this output were not kept\]\n", found), 0
    for kept, missing in zip(pieces[::2], [*pieces[1::2], b"0"]):
        assert everything[position : position + len(kept)] == kept
        position += len(kept) + int(missing)
    assert position == len(everything)
    assert len(pieces[0]) >= HALF and everything[-HALF:].endswith(pieces[-1][-HALF:])


@pytest.mark.slow(seconds=13)
def test_at_the_cap_all_is_kept_and_beyond_it_both_ends(env):
    """One stream is exactly as long as the cap, the other longer; read while they grow, and afterwards."""
    env.server()
    env.worker(1)
    size = OUTPUT_CAP_BYTES + 6 * 2**20 + 5
    everything = numbered(size)
    program = f"import sys\n{writes(OUTPUT_CAP_BYTES, 'stdout')}\n{writes(size, 'stderr')}"
    stdout, stderr = raw(env, "launch", "--wait", "--", "python3", "-c", program)
    assert stdout == everything[:OUTPUT_CAP_BYTES]
    check_both_ends(stderr, everything)
    [execution] = env.executions(1)
    assert (execution["stdout_size"], execution["stderr_size"]) == (OUTPUT_CAP_BYTES, size)
    kept = raw(env, "manage", "task", "output", "--error", 1)[0]
    check_both_ends(kept, everything)
    assert b"bytes of this output were not kept" in kept and len(kept) < OUTPUT_CAP_BYTES + 2 * 2**20
    assert env.stdout(1) == everything[:OUTPUT_CAP_BYTES]


@pytest.mark.slow
def test_kills_of_the_server_and_cuts_of_the_line_leave_no_trace(env):
    """Two megabytes on each stream at full speed, the server killed and the line cut in the middle of it."""
    server = env.server()
    relay = env.relay()
    relay.rate = 8e6  # so that there is a middle
    relay.recording = True
    env.worker(1, server=relay.url)
    size = 2_000_003
    [task] = env.create({"command": f'python3 -c "import sys\n{writes(size, "stdout")}\n{writes(size, "stderr")}"'})
    chance = random.Random(16)
    for _ in range(2):
        sent = relay.passed["up"]
        env.until(lambda sent=sent: relay.passed["up"] > sent + 300_000, what="output is on its way")
        relay.cut()
        time.sleep(chance.uniform(0.0, 0.1))  # any moment will do
        server.kill9()
        server.start()
        relay.replay(3)
    env.wait_state(task)
    assert env.stdout(task) == env.stdout(task, "stderr") == numbered(size)


@pytest.mark.parametrize(
    ("command", "stdout", "stderr"),
    [
        ("true", b"", b""),
        ("printf x", b"x", b""),
        ("printf 'no end of line' >&2", b"", b"no end of line"),
        ("echo out; echo err >&2; echo out", b"out\nout\n", b"err\n"),
        ("for i in 1 2 3; do printf $i; sleep 0.3; done", b"123", b""),
        ("(echo from a child; exec sh -c 'echo and its child') | cat; exit 3", b"from a child\nand its child\n", b""),
        ("echo before; kill -9 $$", b"before\n", b""),
        ("echo to the file itself > /proc/self/fd/1; echo two", b"to the file itself\ntwo\n", b""),
    ],
)
def test_small_things(lab, command, stdout, stderr):
    [task] = lab.create(command)
    lab.wait_state(task, "succeeded", "failed")
    assert (lab.stdout(task), lab.stdout(task, "stderr")) == (stdout, stderr)


def test_tasks_that_write_at_once_do_not_mix(lab):
    tasks = lab.create(*[f"seq {n}00000 {n}20000; seq {n}00000 {n}20000 >&2" for n in range(1, 9)])
    lab.wait_state(tasks)
    for number, task in enumerate(tasks, 1):
        expected = "".join(f"{n}\n" for n in range(number * 100000, number * 100000 + 20001)).encode()
        assert lab.stdout(task) == lab.stdout(task, "stderr") == expected


def test_any_piece_of_it_can_be_asked_for(lab):
    [task] = lab.create("seq 1 5000")
    lab.wait_state(task)
    everything = "".join(f"{n}\n" for n in range(1, 5001)).encode()
    execution = lab.executions(task)[0]["id"]
    for offset, limit in [(0, 1), (1, 7), (100, 10000), (len(everything) - 1, 5), (len(everything), 5), (10**9, 5)]:
        answer = lab.answer("GET", f"/executions/{execution}/stdout", offset=offset, limit=limit)
        assert answer.body == everything[offset : offset + limit]
        assert int(answer.headers["X-Scitq-Size"]) == len(everything)
