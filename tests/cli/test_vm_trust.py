"""What lies beside the disk of a machine that was kept: all of it, or the disk is of no use."""

import pytest

from cfsbuild.cli import vm_trust
from cfsbuild.errors import UsageError

ALL = (vm_trust.SIGNED, vm_trust.KEY, vm_trust.SEALED, vm_trust.POLICY, vm_trust.ENROLMENT)


@pytest.fixture
def beside(tmp_path):
    for name in ALL:
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", [vm_trust.SIGNED, vm_trust.KEY, vm_trust.POLICY, vm_trust.ENROLMENT])
def test_one_file_that_is_missing_is_named(beside, name):
    assert vm_trust.read_trust(beside, tpm=True).bundle == vm_trust.SEALED
    (beside / name).unlink()
    with pytest.raises(UsageError, match="does not say whom") as caught:
        vm_trust.read_trust(beside, tpm=True)
    assert name in caught.value.details
    assert caught.value.reason == "disk"
