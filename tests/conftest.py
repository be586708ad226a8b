"""For all tests: their order; the databases; the black-box environment of `env.py`."""

import collections
import contextlib
import os
import signal

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background, and then by all that tests interrupt
SLOW_SECONDS = 5.0  # of a slow test that does not say more


def pytest_collection_modifyitems(items):
    """The quick ones first; then the slow ones, files that take long before others, so that processes end together."""
    took = collections.Counter()
    for item in items:
        if slow := item.get_closest_marker("slow"):
            took[item.path] += slow.kwargs.get("seconds", SLOW_SECONDS)
    items.sort(key=lambda item: (1, -took[item.path]) if item.get_closest_marker("slow") else (0, 0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run by several processes, the tests of a file stay together: they share its servers."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        """The collection has the quick ones first: a file that comes a second time comes with its slow ones."""

        def __init__(self, *args):
            super().__init__(*args)
            self.scopes, self.times, self.last = {}, collections.Counter(), None

        def _split_scope(self, nodeid):
            if nodeid not in self.scopes:
                file = nodeid.partition("::")[0]
                self.times[file] += file != self.last
                self.scopes[nodeid], self.last = f"{self.times[file]} {file}", file
            return self.scopes[nodeid]

    return ByFile(config, log)


@pytest.fixture
def load(tmp_path):
    """Reads a batch file of this text."""
    from scitq import batchfile

    def loader(text: str, name: str = "b.yaml", **more):
        path = tmp_path / name
        path.write_text(text)
        return batchfile.load(str(path), **more)

    return loader


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of the tests' own. Where it is not installed its tests are skipped, or fail if they have to run."""
    from postgres import Postgres, programs

    if programs() is None:
        (pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip)("PostgreSQL is not installed")
    made = Postgres()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request):
    """A test that takes this runs on both databases: the URL of an empty one."""
    if request.param == "sqlite":
        yield "sqlite:///"
        return
    server = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.give_back(url)


@pytest.fixture
def house(database_url, tmp_path):
    """An open store with its decider, in this process, on each database."""
    from house import House
    from scitq.store import Store

    store = Store.open(database_url, tmp_path)
    yield House(store)
    store.close()


@pytest.fixture
def env(tmp_path):
    """Real servers, workers and commands in a directory of their own; at the end all must have gone well. On SQLite."""
    from env import Env

    made = Env(tmp_path)
    yield made
    made.close()


@pytest.fixture
def env_on_each(tmp_path, database_url):
    """`env` on SQLite, and again on PostgreSQL."""
    from env import Env

    made = Env(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(request, tmp_path_factory):
    """One server for all tests of a file, on each database."""
    from env import Env

    url = request.getfixturevalue("postgres").new_database() if request.param == "postgresql" else None
    made = Env(tmp_path_factory.mktemp("served"), url)
    made.server(variables={"SCITQ_ONE_FILE": str(made.directory / "scitq.pyz")})  # where a test may make one
    yield made
    made.close()


@pytest.fixture
def batch(request):
    """A name of its own for each test, and each try of it (tests/run.py tries once more what failed)."""
    attempt = getattr(request.node, "execution_count", 1)
    return request.node.name.replace("[", "-").replace("]", "") + (f"-{attempt}" if attempt > 1 else "")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server and a worker of four slots, for all tests of a file; each uses names of its own."""
    from env import Env

    made = Env(tmp_path_factory.mktemp("lab"))
    made.server()
    made.worker(concurrency=4)
    yield made
    made.close()


@pytest.fixture(scope="module")
def chromium():
    """One Chromium for all tests of a file; ended with it, for it keeps an event loop in this thread."""
    from browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def tabs(chromium):
    """Makes tabs (`browser.Tab`) on the UI of an environment: `tabs(env, dark=True)`.

    At the end all must have gone well in them.
    """
    from browser import Tab

    made = []

    def make(env, **options):
        made.append(Tab(chromium, env, **options))
        return made[-1]

    yield make
    for tab in made:
        tab.close()


@pytest.fixture(scope="module")
def kept_tabs(chromium):
    """The tab of an environment, signed in, the same for all tests of a file: `with kept_tabs(env) as tab`.

    All must have gone well.
    """
    from browser import Tab

    made = {}

    @contextlib.contextmanager
    def lent(env):
        if env not in made:
            made[env] = Tab(chromium, env)
        made[env].renew()
        yield made[env]
        made[env].check()

    yield lent
    for tab in made.values():
        tab.context.close()


@pytest.fixture
def tab(kept_tabs, lab):
    """A tab that is signed in at the server of `lab`.

    Who changes its cookies, its storage or what it may load takes `own_tab`.
    """
    with kept_tabs(lab) as kept:
        yield kept


@pytest.fixture
def own_tab(tabs, lab):
    """A tab that is signed in at the server of `lab`, with a profile of its own."""
    return tabs(lab)
