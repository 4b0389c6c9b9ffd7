"""verify --revoked: what revoked keys signed counts for nothing, and nothing that is asked is passed over."""

from pathlib import Path

import pytest


@pytest.fixture
def image(lab):
    return lab.image()


@pytest.fixture
def ids(run):
    return {name: run("key", "new", name, "--json").json["id"] for name in ("old", "new")}


TRUST = ["a.cfs", "--key", "old.pub", "--key", "new.pub"]


@pytest.mark.parametrize("named", ["old.pub", "{old}", "{OLD}"])
def test_what_only_a_revoked_key_signed_is_refused(lab, run, refused, image, ids, *, named):
    run("sign", "a.cfs", "--key", "old.key")
    revoked = named.format(old=ids["old"], OLD=ids["old"].upper())
    assert run("verify", *TRUST).status == 0
    assert refused(*TRUST, "--revoked", revoked) == "key-revoked"
    assert refused("a.cfs", "--key", "old.pub", "--revoked", revoked) == "key-revoked"
    assert refused("a.cfs", "--key", "new.pub", "--revoked", revoked) == "key-revoked"


def test_a_good_key_still_vouches_where_a_revoked_one_signed_too(lab, run, refused, image, ids):
    run("sign", "a.cfs", "--key", "old.key")
    run("sign", "a.cfs", "--key", "new.key")
    told = run("verify", *TRUST, "--revoked", "old.pub", "--json")
    assert told.status == 0
    assert told.json["signers"] == [ids["new"]]
    assert refused(*TRUST, "--threshold", "2", "--revoked", "old.pub") == "signature-threshold"
    assert refused(*TRUST, "--revoked", "old.pub", "--revoked", ids["new"]) == "key-revoked"


def test_a_revoked_key_that_did_not_sign_changes_nothing(lab, run, image, ids):
    run("sign", "a.cfs", "--key", "new.key")
    assert run("verify", *TRUST, "--revoked", "old.pub").status == 0


@pytest.mark.parametrize(
    ("revoked", "status"),
    [("missing.pub", 2), ("0123456789abcdef", 2), ("", 2), ("old.key", 2), ("a.cfs", 1)],
)
def test_what_is_no_key_is_an_error_even_if_all_is_well(lab, run, image, ids, *, revoked, status):
    run("sign", "a.cfs", "--key", "new.key")
    assert run("verify", *TRUST, "--revoked", revoked).status == status


@pytest.mark.parametrize(
    "arguments",
    [
        ["--revoked", "old.pub"],
        ["--fsverity-signature", "a.cfs"],
        ["--key", "old.pub", "--fsverity-signature", "a.cfs"],
    ],
)
def test_questions_about_nobody_are_refused(lab, run, image, ids, arguments):
    failed = run("verify", "a.cfs", *arguments)
    assert failed.status == 2
    assert "hint" in failed.err


def test_a_key_by_which_anybody_can_sign_is_not_trusted(lab, run, image, ids):
    # The point 1, whose only multiple is itself: RFC 8410's frame, and y in 32 bytes.
    Path("weak.pub").write_text(
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n"
    )
    run("sign", "a.cfs", "--key", "new.key")
    for arguments in (["key", "show", "weak.pub"], ["verify", *TRUST, "--key", "weak.pub"]):
        failed = run(*arguments)
        assert failed.status == 1
        assert "none that anybody owns" in failed.err
