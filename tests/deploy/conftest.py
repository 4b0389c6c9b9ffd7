"""A machine whose image is mounted, for the tests of what stays writable and of its identity."""

import pytest
from machines import Machine


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    made.off()
