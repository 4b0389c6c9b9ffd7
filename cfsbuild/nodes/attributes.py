"""The kind `attributes`: changes owner, mode, time, xattrs, capabilities, ACLs and SELinux labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import Annotated

import msgspec

from cfsbuild.errors import BuildError, CfsError, InputError, Problem
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.nodes import metadata
from cfsbuild.nodes.attribute_rules import Change, Rule, rule_errors, selects
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import LocalPath
from cfsbuild.tree import acl, paths
from cfsbuild.tree.globs import compile_globs
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Layer, Tree, make_layer

_FILE_CONTEXTS_BYTES = 64 * 2**20


class AttributesParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes to the attributes of what the node needs: first labels, then the rules in their order."""

    rules: Annotated[list[Rule], msgspec.Meta(description="Applied one after the other.")] = []
    file_contexts: Annotated[
        LocalPath | list[LocalPath] | None,
        msgspec.Meta(
            description="SELinux file_contexts files, read as one: every path of what the node needs gets "
            "the label that they say.",
            examples=["policy/file_contexts"],
        ),
    ] = None

    @property
    def contexts(self) -> list[str]:
        """Return the file_contexts files."""
        value = self.file_contexts
        return [] if value is None else [value] if isinstance(value, str) else value


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find rules that cannot work, whatever they match."""
    params: AttributesParams = spec.params
    if not params.rules and not params.contexts:
        yield Problem(f"{spec.name}: changes nothing", "", "add rules or file_contexts", spec.origin)
    if not spec.needs:
        yield Problem(
            f"{spec.name}: changes attributes, but needs no node that has any",
            "",
            "add needs = [...] with the nodes whose files it is about",
            spec.origin,
        )
    for index, name in enumerate(params.contexts):
        path = spec.resolve(_contexts_key(params, index), name)
        if not path.is_file():
            yield Problem(
                f"{spec.name}: there is no file {path}", origin=spec.origin_of(_contexts_key(params, index))
            )
    for index, rule in enumerate(params.rules):
        key = f"rules.{index}"
        yield from metadata.glob_problems(spec, ((f"{key}.match", pattern) for pattern in rule.globs))
        yield from metadata.xattr_problems(spec, rule.xattrs, f"{key}.xattrs")
        for parameter, wrong in rule_errors(rule):
            yield metadata.problem_at(spec, f"{key}.{parameter}" if parameter else key, wrong)


def _contexts_key(params: AttributesParams, index: int) -> str:
    return "file_contexts" if isinstance(params.file_contexts, str) else f"file_contexts.{index}"


def gather(context: NodeContext, params: AttributesParams) -> Fingerprint:
    """Read the file_contexts files."""
    digests: dict[str, str] = {}
    contents: list[tuple[str, bytes]] = []
    for index, name in enumerate(params.contexts):
        key = _contexts_key(params, index)
        path = context.spec.resolve(key, name)
        try:
            with path.open("rb") as file:
                data = file.read(_FILE_CONTEXTS_BYTES + 1)
        except OSError as error:
            raise BuildError(
                f"cannot read {path}: {error.strerror}", origin=context.spec.origin_of(key), reason="source"
            ) from error
        if len(data) > _FILE_CONTEXTS_BYTES:
            raise BuildError(
                f"{path} is larger than {_FILE_CONTEXTS_BYTES >> 20} MiB", origin=context.spec.origin_of(key)
            )
        digests[key] = digest_bytes(data, context.sink.algorithm).hex()
        contents.append((os.fspath(path), data))
    return Fingerprint(digests=digests, payload=contents)


def produce(context: NodeContext, params: AttributesParams, fingerprint: Fingerprint) -> Layer:
    """Return a layer with every inode that comes out different."""
    tree = context.input or Tree(entries={})
    names = dict(zip(tree.entries, tree.entries, strict=True)) | tree.links
    inodes = dict(tree.entries)
    if params.contexts:
        _label(context, fingerprint.payload, names, inodes)
    for index, rule in enumerate(params.rules):
        _apply(context, f"rules.{index}", rule, names, inodes)
    entries = {path: inode for path, inode in inodes.items() if inode != tree.entries[path]}
    links = {link: target for link, target in tree.links.items() if target in entries}
    return make_layer(entries, links=links)


def _apply(
    context: NodeContext,
    key: str,
    rule: Rule,
    names: dict[bytes, bytes],
    inodes: dict[bytes, Inode],
) -> None:
    """Apply one rule; `names` maps every name to the first name of its inode."""
    matched = dict.fromkeys(compile_globs(rule.globs).select(names))
    chosen = dict.fromkeys(names[path] for path in matched if selects(rule, inodes[names[path]]))
    if not chosen and not rule.missing_ok:
        raise BuildError(
            f"{context.spec.name}: nothing matches {rule.match!r}",
            details="the node needs " + (", ".join(context.spec.needs) or "no other"),
            resolution="correct the glob, add what provides the path to needs, or set missing_ok = true",
            origin=context.spec.origin_of(key),
            reason="nothing-matched",
        )
    _check_links(context, key, rule, names, matched, chosen)
    change = Change(rule, context.owners)
    for first in chosen:
        inodes[first] = _with_place(context, key, first, inodes[first], change.apply)


def _check_links(  # noqa: PLR0913, PLR0917
    context: NodeContext,
    key: str,
    rule: Rule,
    names: dict[bytes, bytes],
    matched: Collection[bytes],
    chosen: Collection[bytes],
) -> None:
    """Raise `BuildError` if a rule matches some names of a file and not others."""
    for other, first in names.items():
        if first in chosen and other not in matched:
            name = next(path for path in matched if names[path] == first)
            raise BuildError(
                f"{context.spec.name}: {rule.match!r} matches {paths.show(name)},"
                f" but not its hard link {paths.show(other)}",
                details="both names are one file, which has one set of attributes",
                resolution="match all names of the file, or none",
                origin=context.spec.origin_of(key),
                reason="split-links",
            )


def _with_place(
    context: NodeContext, key: str, path: bytes, inode: Inode, action: Callable[[Inode], Inode]
) -> Inode:
    """Run `action`; errors name the path and the rule."""
    try:
        return action(inode)
    except InputError as error:
        raise BuildError(
            f"{context.spec.name}: {paths.show(path)}: {error.brief}",
            details=error.details,
            resolution=error.resolution,
            origin=context.spec.origin_of(key),
            reason="attributes",
        ) from error


def _label(
    context: NodeContext,
    contents: list[tuple[str, bytes]],
    names: dict[bytes, bytes],
    inodes: dict[bytes, Inode],
) -> None:
    from cfsbuild.tree import selinux  # noqa: PLC0415 (imports re)

    specs: list[selinux.Spec] = []
    for file, data in contents:
        specs += selinux.parse_file_contexts(data, file, first=len(specs))
    file_contexts = selinux.FileContexts(specs)
    labels: dict[bytes, bytes | None] = {}
    for path, first in names.items():
        label = file_contexts.label(path, inodes[first].mode)
        # `names` has the first name of each inode before its links.
        if labels.setdefault(first, label) != label:
            raise BuildError(
                f"{context.spec.name}: names of one file get different SELinux labels",
                details=f"{paths.show(first)}: {paths.show(labels[first] or b'<<none>>')}\n"
                f"{paths.show(path)}: {paths.show(label or b'<<none>>')}",
                resolution="give all names of the file the same label in file_contexts",
                origin=context.spec.origin_of("file_contexts"),
                reason="split-links",
            )
    if not any(labels.values()):
        context.note("file_contexts has no label for anything that the node needs", "file_contexts")
    for first, label in labels.items():
        if label is not None:
            inode = inodes[first]
            # As setfiles(8) stores it: with a final NUL.
            xattrs = dict(inode.xattrs) | {selinux.XATTR: label + b"\0"}
            inodes[first] = msgspec.structs.replace(inode, xattrs=tuple(sorted(xattrs.items())))


def owner_names(params: AttributesParams) -> Iterator[tuple[str, str, str]]:
    """List the owner names used, those in ACLs as well."""
    for index, rule in enumerate(params.rules):
        key = f"rules.{index}."
        yield from metadata.owner_names(rule, key)
        for parameter, text in (("acl", rule.acl), ("default_acl", rule.default_acl)):
            if text is not None:
                try:
                    found = acl.names_in(text)
                except CfsError:
                    # `check` reports it.
                    continue
                for what, name in found:
                    yield key + parameter, what, name


KIND = NodeKind(
    name="attributes",
    version=1,
    summary="Owner, mode, times, xattrs, capabilities, ACLs and SELinux labels of what the node needs.",
    params=AttributesParams,
    produce=produce,
    gather=gather,
    check=check,
    owner_names=owner_names,
    path_keys=("file_contexts",),
    reads=True,
    static=False,
)
