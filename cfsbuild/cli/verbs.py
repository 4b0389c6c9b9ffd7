"""What the command line offers: a table from verb to module, so that help imports no verb.

Each module exports `command`, a `click.Command`; the module of a front end exports
`main(argv, program_name) -> int` instead.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

PROGRAM = "cfsbuild"
COMPLETE_VARIABLE = "_CFSBUILD_COMPLETE"
PACKAGE = "cfsbuild.cli"


class Verb(NamedTuple):
    """Where a verb lives, under which heading help lists it, and its one-line summary."""

    module: str
    section: str
    summary: str


_MAKE = "Recipe to image"
_LOOK = "Look into images and trees"
_PLAN = "Understand a build"
_TRUST = "Trust"
_USE = "Use an image"
_EXCHANGE = "Other formats"
_STORE = "The store"
_HELP = "Help"
_FRONT = "Drop-in front ends"

VERBS: dict[str, Verb] = {
    "init": Verb("init", _MAKE, "Write a commented recipe to start from."),
    "check": Verb("check", _MAKE, "Validate recipes without building them."),
    "build": Verb("build", _MAKE, "Build the images of a recipe."),
    "watch": Verb("watch", _MAKE, "Build again whenever a source changes."),
    "show": Verb("show", _LOOK, "Show a recipe after includes, variables and templates."),
    "ls": Verb("ls", _LOOK, "List what an image contains."),
    "cat": Verb("cat", _LOOK, "Write a file of an image to standard output."),
    "dump": Verb("dump", _LOOK, "Write an image as composefs-dump text."),
    "diff": Verb("diff", _LOOK, "Compare two images, path by path."),
    "explain": Verb("explain", _LOOK, "Say why the digests of two images differ."),
    "graph": Verb("graph", _PLAN, "Draw the plan of a build."),
    "why": Verb("why", _PLAN, "Say why a node was rebuilt, or was not."),
    "key": Verb("key", _TRUST, "Make signing keys, and say what a key is."),
    "sign": Verb("sign", _TRUST, "Sign an image, here or by a key that is elsewhere."),
    "verify": Verb("verify", _TRUST, "Check an image's structure, digests and signatures."),
    "enroll": Verb("enroll", _TRUST, "Say what this machine's TPM is, so that others can seal for it."),
    "seal": Verb("seal", _TRUST, "Encrypt a signed document to the TPMs of enrolled machines."),
    "unseal": Verb("unseal", _TRUST, "Open a sealed bundle with this machine's TPM, or say why not."),
    "advance": Verb("advance", _TRUST, "Count the rollback counter up: what is older unseals no more."),
    "mount": Verb("mount", _USE, "Mount an image."),
    "umount": Verb("umount", _USE, "Unmount an image."),
    "shell": Verb("shell", _USE, "Run a shell or a command inside an image."),
    "vm": Verb("vm", _USE, "Boot an image in a virtual machine."),
    "import": Verb("import_", _EXCHANGE, "Take an image or a dump into the store."),
    "export": Verb("export", _EXCHANGE, "Write an image as a file, dump, tar archive or directory."),
    "store": Verb("store_verbs", _STORE, "Make, inspect, check and clean the object store."),
    "schema": Verb("schema", _HELP, "Print the JSON schema of recipes."),
    "completion": Verb("completion", _HELP, "Print a completion script for bash, zsh or fish."),
    "doctor": Verb("doctor", _HELP, "Say what works on this machine, and what to install."),
    "install-links": Verb("install_links", _FRONT, "Make links by which other programs find the front ends."),
}
"""In the order in which help lists them."""

FRONT_ENDS: dict[str, Verb] = {
    "mkcomposefs": Verb("mkcomposefs", _FRONT, "Stand in for mkcomposefs(1)."),
    "composefs-info": Verb("composefs_info", _FRONT, "Stand in for composefs-info(1)."),
    "mount.composefs": Verb("mount_composefs", _FRONT, "Stand in for mount.composefs(1)."),
}
"""Programs whose options, output and exit status are those of the C tools of that name."""

DEFAULT_VERB = "build"
"""What `cfsbuild RECIPE.toml` does."""

DEFAULT_RECIPE = "recipe.toml"
"""What a verb is about that is given no recipe."""


def run_front_end(name: str, arguments: list[str]) -> int:
    """Call a front end, by which name it calls itself; return its exit status."""
    front_end = importlib.import_module(f"{PACKAGE}.{FRONT_ENDS[name].module}")
    status: int = front_end.main(arguments, name)
    return status
