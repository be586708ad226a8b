"""For all tests: the quick ones first; the black-box environment of `env.py`."""

import pytest


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture
def env(tmp_path):
    """Real servers, workers and commands in a directory of their own; at the end all must have gone well. SQLite unless a test says otherwise."""
    from env import Env

    made = Env(tmp_path)
    yield made
    made.close()
