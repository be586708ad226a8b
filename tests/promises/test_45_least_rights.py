"""Promise 45: root is not needed; and where it is there, a task that is another user's has that user's rights, and no group more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from env import PATIENCE_SECONDS, Env

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else: run the tests as root"),
]


@pytest.fixture
def folder():
    """A folder of nobody's, below folders that everybody may pass."""
    made = Path(tempfile.mkdtemp(prefix="scitq-nobody-", dir="/tmp"))
    os.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


def as_nobody(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """The one file, started by a user who has nothing but this folder."""
    made = Path(os.environ.get("SCITQ_TESTS_ONE_FILE") or ROOT / "dist" / "scitq.pyz")
    file = shutil.copy(made, folder)
    return subprocess.run(
        ["/usr/bin/python3", file, *words], cwd=folder, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"}, user=NOBODY,
        group=NOBODY, extra_groups=[], capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip


def test_server_worker_and_task_of_a_user_without_rights(folder):
    done = as_nobody(folder, "run", "--", "sh", "-c", "id -u; id -G; touch $OUTPUT/x")
    assert (done.returncode, done.stdout.split()) == (0, [str(NOBODY)] * 2), done.stderr


def test_a_user_without_rights_becomes_nobody_else(folder):
    (folder / "root.yaml").write_text("tasks:\n- {name: a, command: id -u, uid: 0}\n- {name: b, command: id -u, gid: 0}\n")
    done = as_nobody(folder, "run", "root.yaml")
    assert done.returncode == 10, done.stdout
    for wanted in ("uid 0", "gid 0"):
        assert f"this worker runs as uid {NOBODY} and cannot run a command as {wanted}: start the worker as root" in done.stdout


@pytest.mark.parametrize(
    ("asked", "groups"), [({"uid": NOBODY}, [NOBODY]), ({"uid": NOBODY, "gid": 12}, [12]), ({"gid": 12}, [12])]
)
def test_groups_are_left_behind(env: Env, asked, groups):
    """A worker of root's that is in other groups too, as those of a login are."""
    for parent in [env.directory, *env.directory.parents]:
        if not os.stat(parent).st_mode & 0o001:
            os.chmod(parent, 0o711)
    env.server()
    mine = os.getgroups()
    os.setgroups([0, 4, 27])
    try:
        env.worker(1)
    finally:
        os.setgroups(mine)
    [ordinary, task] = env.create({"command": "id -G"}, {"command": "id -u; id -G; id -g", "shell": "sh", **asked})
    env.wait_state(task)
    assert env.stdout(ordinary).split() == [b"0", b"4", b"27"], "the worker has them"
    user, *found = map(int, env.stdout(task).split())
    assert (user, found) == (asked.get("uid", 0), [*groups, *groups])
