"""Unsealing by tpm2-tools: a shell script that runs one unseal policy, for machines without this program.

The script is POSIX shell. It takes the three parts of a sealed key as files, and prints the key. The policy
is in it: a new policy is a new script.
"""

from __future__ import annotations

from collections.abc import Iterator

from cfsbuild.errors import UsageError
from cfsbuild.trust import unseal_policy
from cfsbuild.trust.tpm.numbers import PERSISTENT_SRK
from cfsbuild.trust.tpm.wire import sized, u64
from cfsbuild.trust.unseal_policy import Authorization, Branch, UnsealPolicy

SUFFIX = ".unseal.sh"

_HEAD = """\
#!/bin/sh
# Prints the key (32 bytes) that is sealed in BUNDLE.pub, BUNDLE.priv and BUNDLE.seed, if this machine's TPM
# releases it. What the key decrypts is not to be trusted before its signature is verified.
# Needs tpm2-tools 5. Environment: TPM2TOOLS_TCTI says where the TPM is.
set -eu
umask 077
[ $# = 1 ] || {{ echo "usage: $0 BUNDLE.cfsb >KEY" >&2; exit 2; }}
bundle=$1
work=$(mktemp -d)

forget() {{
    [ ! -e "$work/session" ] || tpm2_flushcontext "$work/session" >/dev/null 2>&1 || :
    rm -f "$work/session"
    tpm2_flushcontext -t >/dev/null 2>&1 || :
}}

end() {{
    status=$?
    trap - EXIT
    forget
    rm -rf "$work"
    exit "$status"
}}
trap end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# What a tool says is shown only if it fails.
run() {{
    "$@" >"$work/said" 2>&1 || {{ cat "$work/said" >&2; return 1; }}
}}

begin() {{
    forget
    run tpm2_startauthsession --policy-session --tpmkey-context={srk} -S "$work/session" &&
        run tpm2_sessionconfig --enable-encrypt "$work/session"
}}
"""

_TAKE_IN = """
run tpm2_import -C {srk} -u "$bundle.pub" -i "$bundle.priv" -s "$bundle.seed" -r "$work/private"
run tpm2_load -C {srk} -u "$bundle.pub" -r "$work/private" -c "$work/key"
run tpm2_flushcontext -t
"""

_APPROVE = """
run tpm2_loadexternal -C o -u "$work/signer" -c "$work/signer.context" -n "$work/signer.name"
run tpm2_verifysignature -c "$work/signer.context" -g sha256 -m "$work/message" -s "$work/signature" \\
    -t "$work/ticket"
run tpm2_flushcontext -t
"""

_AUTHORIZE = """\
run tpm2_policyauthorize -S "$work/session" -i "$work/approved" -n "$work/signer.name" -t "$work/ticket" \\
    -q "$work/ref"
"""


def render(document: UnsealPolicy) -> bytes:
    """Return the script of a policy that was decoded, which makes its values fit for a shell.

    Raises `UsageError` (reason `pin`) for a policy with a PIN: these tools want it as an argument, where
    others can read it.
    """
    if document.auth_value:
        raise UsageError(
            "tpm2-tools take the PIN of a policy as an argument only, where others can read it",
            resolution="unseal with `cfsbuild unseal`, or seal without a PIN",
            reason="pin",
        )
    srk = f"0x{PERSISTENT_SRK:08x}"
    parts = [_HEAD.format(srk=srk)]
    branches = [unseal_policy.branch_digest(branch) for branch in document.branches]
    for number, (branch, digest) in enumerate(zip(document.branches, branches, strict=True), 1):
        parts += _branch(number, branch, digest)
    parts.append(_TAKE_IN.format(srk=srk))
    if document.authorize is not None:
        parts += _approval(document, document.authorize)
    tries = " || ".join(f"branch_{number}" for number in range(1, 1 + len(branches)))
    parts.append(
        f'\n{tries} || {{ echo "$0: the machine is in no state that the policy names" >&2; exit 5; }}\n'
    )
    if len(branches) > 1:
        listed = ",".join(f"$work/branch_{number}" for number in range(1, 1 + len(branches)))
        parts.append(f'run tpm2_policyor -S "$work/session" -l "sha256:{listed}"\n')
    if document.authorize is not None:
        parts.append(_AUTHORIZE)
    parts.append('tpm2_unseal -c "$work/key" -p "session:$work/session"\n')
    return "".join(parts).encode("ascii")


def _branch(number: int, branch: Branch, digest: bytes) -> Iterator[str]:
    """Yield a function that takes a new session through a branch, and fails if it does not hold."""
    yield "\n" + _file(f"branch_{number}", digest)
    steps = []
    if branch.pcrs:
        values = branch.values
        registers = sorted(values)
        yield _file(f"pcrs_{number}", b"".join(values[each] for each in registers))
        listed = ",".join(map(str, registers))
        steps.append(f'tpm2_policypcr -S "$work/session" -l sha256:{listed} -f "$work/pcrs_{number}"')
    if branch.counter is not None:
        yield _file(f"operand_{number}", u64(branch.counter.operand))
        index = f"0x{branch.counter.index:08x}"
        steps.append(f'tpm2_policynv -S "$work/session" -C {index} {index} -i "$work/operand_{number}" ule')
    chain = " &&\n        ".join(f'run {step} -L "$work/digest"' for step in steps)
    # A counter that was made again holds, but leads to another digest.
    yield (
        f"branch_{number}() {{\n    begin &&\n        {chain} &&\n"
        f'        cmp "$work/digest" "$work/branch_{number}" >&2\n}}\n'
    )


def _approval(document: UnsealPolicy, authorize: Authorization) -> Iterator[str]:
    ref = bytes.fromhex(authorize.ref)
    yield "\n" + _file("signer", sized(bytes.fromhex(authorize.key)))
    yield _file("message", unseal_policy.approval_message(document, ref))
    yield _file("signature", bytes.fromhex(authorize.signature))
    yield _file("approved", unseal_policy.approved_digest(document))
    yield _file("ref", ref)
    yield _APPROVE


def _file(name: str, data: bytes) -> str:
    """Return the command that writes `data` into a file; octal is what every shell's printf knows."""
    octal = "".join(f"\\{byte:03o}" for byte in data)
    return f"printf '{octal}' >\"$work/{name}\"\n"
