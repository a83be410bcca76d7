"""SELinux: the payload gets the labels of the image's own policy, and nothing else is relabelled."""

from __future__ import annotations

import random
import re
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import tiny
from liveos.specials import Inode, folder
from packing.site import Site, image_with_root, take_out
from packing.trees import tree_of
from pxe_pack.image import liveos
from pxe_pack.image.file_contexts import FileContexts, parse, read_file_contexts
from pxe_pack.image.limits import Limit, LimitError, Usage
from pxe_pack.image.linear_pattern import compile_pattern
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.tree import Inode as TreeInode
from pxe_pack.image.tree import ListedTree
from pxe_pack.tools import InputError, find

Packs = Callable[..., str]
LABEL = "SCHILY.xattr.security.selinux"
TYPES = {"--": stat.S_IFREG, "-d": stat.S_IFDIR, "-l": stat.S_IFLNK}
POLICY = "etc/selinux/targeted/contexts/files"
# Worded afresh, in the manner of the reference policy's: sorted from what says little to what says much.
FILE_CONTEXTS = r"""
# a comment

/.*	system_u:object_r:default_t:s0
/[^/]+	--	system_u:object_r:etc_runtime_t:s0
/usr/.*	system_u:object_r:usr_t:s0
/etc/.*	system_u:object_r:etc_t:s0
/srv/.*	system_u:object_r:var_t:s0
/opt/.*	system_u:object_r:usr_t:s0
/tmp/.*	<<none>>
/usr/lib(/.*)?	system_u:object_r:lib_t:s0
/usr/(.*/)?bin(/.*)?	system_u:object_r:bin_t:s0
/usr/lib/.*\.so(\.[^/]*)*	--	system_u:object_r:shlib_t:s0
/usr/lib/pxe-fetch(/.*)?	system_u:object_r:pxe_fetch_lib_t:s0
/usr/lib/pxe-fetch/_internal/.*\.txt	--	system_u:object_r:pxe_fetch_data_t:s0
/usr/lib/systemd/system(/.*)?	system_u:object_r:systemd_unit_file_t:s0
/usr/lib/systemd/system/.*\.wants/.*	-l	system_u:object_r:systemd_link_t:s0
/usr/lib/(systemd|tmpfiles\.d)/cata[lm]og(/.*)?	system_u:object_r:catalog_t:s0
/etc/pxe-fetch	-d	system_u:object_r:pxe_fetch_conf_t:s0
/a|/b.*	system_u:object_r:either_t:s0
/usr/lib/ab?c+d*	system_u:object_r:counted_t:s0
/usr/lib/pxe-fetch/pxe-fetch	--	system_u:object_r:pxe_fetch_exec_t:s0
/usr/lib/a\.b	system_u:object_r:dotted_t:s0
/usr/lib/a.b	--	system_u:object_r:any_letter_t:s0
/	-d	system_u:object_r:root_t:s0
"""
HOMEDIRS = "/root(/.*)?\tsystem_u:object_r:admin_home_t:s0\n/root\\.d(/.*)?\t-d\tsystem_u:object_r:admin_dir_t:s0\n"
LOCAL = "/etc/pxe-fetch/.*\\.yaml\t--\tsystem_u:object_r:pxe_fetch_conf_t:s0:c1\n"
SUBS, SUBS_DIST = "/usr/lib64 /usr/lib\n", "/run /var/run\n/opt/lib /usr/lib64\n/bin /usr/bin\n"
DEMANDED = {
    "etc/pxe-fetch": "pxe_fetch_conf_t:s0",
    "etc/pxe-fetch/fetch.yaml": "pxe_fetch_conf_t:s0:c1",
    "usr/bin/pxe-fetch": "either_t:s0",
    "usr/lib/pxe-fetch": "pxe_fetch_lib_t:s0",
    "usr/lib/pxe-fetch/_internal": "pxe_fetch_lib_t:s0",
    "usr/lib/pxe-fetch/_internal/agent.json": "pxe_fetch_lib_t:s0",
    "usr/lib/pxe-fetch/_internal/data.txt": "pxe_fetch_data_t:s0",
    "usr/lib/pxe-fetch/pxe-fetch": "pxe_fetch_exec_t:s0",
    "usr/lib/systemd/catalog": "catalog_t:s0",
    "usr/lib/systemd/catalog/pxe-fetch.catalog": "catalog_t:s0",
    "usr/lib/systemd/system/multi-user.target.wants": "systemd_unit_file_t:s0",
    "usr/lib/systemd/system/multi-user.target.wants/pxe-fetch.target": "systemd_link_t:s0",
    "usr/lib/systemd/system/pxe-fetch-catalog.service": "systemd_unit_file_t:s0",
    "usr/lib/systemd/system/pxe-fetch.service": "systemd_unit_file_t:s0",
    "usr/lib/systemd/system/pxe-fetch.target": "systemd_unit_file_t:s0",
    "usr/share": "usr_t:s0",
    "usr/share/bash-completion": "either_t:s0",
    "usr/share/bash-completion/completions": "either_t:s0",
    "usr/share/bash-completion/completions/pxe-fetch": "either_t:s0",
    "usr/share/man": "usr_t:s0",
    "usr/share/man/man8": "usr_t:s0",
    "usr/share/man/man8/pxe-fetch.8.gz": "usr_t:s0",
}


def files() -> dict[str, str]:
    """The policy's files in an image."""
    return {
        "etc/selinux/config": "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n",
        f"{POLICY}/file_contexts": FILE_CONTEXTS,
        f"{POLICY}/file_contexts.homedirs": HOMEDIRS,
        f"{POLICY}/file_contexts.local": LOCAL,
        f"{POLICY}/file_contexts.subs": SUBS,
        f"{POLICY}/file_contexts.subs_dist": SUBS_DIST,
    }


def labelled(policy: dict[str, str]) -> list[Inode]:
    """A root filesystem with `policy`, in which every inode has a label of its own."""
    folders = {str(parent) for path in policy for parent in Path(path).parents} - {".", "etc"}
    contents = [Inode(".", b"5", mode=0o755), *tiny.tree(), *(folder(path) for path in sorted(folders))]
    contents += [Inode(path, data=text.encode()) for path, text in policy.items()]

    def label(inode: Inode) -> dict[str, bytes]:
        return {"security.selinux": f"system_u:object_r:kept_{inode.kind.decode()}_t:s0\0".encode()}

    return [replace(inode, xattrs={**inode.xattrs, **label(inode)}) for inode in contents]


def in_memory(policy: dict[str, str]) -> ListedTree:
    inodes = {
        path: TreeInode(path=path, mode=stat.S_IFREG | 0o644, uid=0, gid=0, size=f"{len(text)}", mtime="0")
        for path, text in policy.items()
    }
    return ListedTree(inodes=inodes, read=lambda path: policy[path].encode())


def contexts() -> FileContexts:
    found = read_file_contexts(in_memory(files()))
    assert found
    return found


def test_a_labelled_image_gets_the_payload_with_the_labels_that_its_policy_demands(
    site: Site, packs: Packs, tmp_path: Path
) -> None:
    site.image = image_with_root(site.image, labelled(files()), tmp_path)
    old = tree_of(take_out(site.image, "liveos/rootfs.img", tmp_path / "old"))
    for number, arguments in enumerate([(), ("--compressor", "zstd", "--level", "1")]):
        packs("--inject", "rootfs", *arguments)
        new = tree_of(take_out(site.iso, "liveos/rootfs.img", tmp_path / f"new{number}"))
        labels = {path: dict(inode.xattrs)[LABEL] for path, inode in new.items()}
        demanded = {path: f"system_u:object_r:{label}\0" for path, label in DEMANDED.items()}
        assert {path: labels[path] for path in new.keys() - old.keys()} == demanded
        assert {path: inode for path, inode in new.items() if path in old} == old
        assert {label for path, label in labels.items() if path in old} >= {"system_u:object_r:kept_5_t:s0\0"}


def test_folders_give_their_labels_where_the_policy_is_silent(site: Site, packs: Packs, tmp_path: Path) -> None:
    policy = {"etc/selinux/config": "SELINUXTYPE=targeted\n"}
    contents = [
        replace(inode, xattrs={"security.selinux": b"u:r:units_t:s0\0"}) if inode.path.endswith("/system") else inode
        for inode in labelled(policy)
    ]
    site.image = image_with_root(site.image, contents, tmp_path)
    packs("--inject", "rootfs")
    new = tree_of(take_out(site.iso, "liveos/rootfs.img", tmp_path / "new"))
    assert dict(new["usr/lib/systemd/system/pxe-fetch.service"].xattrs)[LABEL] == "u:r:units_t:s0\0"
    assert dict(new["usr/lib/pxe-fetch/pxe-fetch"].xattrs)[LABEL] == "system_u:object_r:kept_5_t:s0\0"


def test_an_image_without_labels_gets_none(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "rootfs")
    new = tree_of(take_out(site.iso, "liveos/rootfs.img", tmp_path / "new"))
    assert not [path for path, inode in new.items() if any(name == LABEL for name, _ in inode.xattrs)]


def test_an_enforcing_image_goes_by_rootfs_alone(site: Site, packs: Packs, tmp_path: Path) -> None:
    contents = labelled(files())
    image = image_with_root(site.image, contents, tmp_path)
    cfg = take_out(image, "boot/grub2/grub-pxe.cfg", tmp_path / "grub-pxe.cfg")
    cfg.write_text(cfg.read_text().replace("selinux=0", ""))
    site.image = tmp_path / "enforcing.iso"
    command = ["xorriso", "-indev", str(image), "-outdev", str(site.image), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(cfg), "/boot/grub2/grub-pxe.cfg"], check=True, capture_output=True)
    with liveos.opened(site.image, boot_url="http://10.0.0.1/l.iso") as opened:
        assert isinstance(opened, LiveImage)
        assert opened.selinux_enforcing
    packs()
    inject = site.manifest()["inject"]
    assert isinstance(inject, dict)
    assert inject["how"] == "rootfs"
    assert "not `updates`: SELinux is enforcing" in inject["why"]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "path",
    [
        *(f"/{path}" for path in DEMANDED),
        *("/", "/file", "/a", "/b/c", "/usr", "/usr/x", "/usr/lib", "/usr/lib64/x.so.1", "/usr/lib/d/x.so"),
        *("/usr/lib/ac", "/usr/lib/abccd", "/usr/lib/a.b", "/usr/lib/axb", "/usr/lib/bin/x", "/usr/bin", "/bin/sh"),
        *("/run/x", "/var/run/x", "/opt/lib/pxe-fetch/pxe-fetch", "/opt/library", "/root", "/root.d", "/root/.ssh"),
        *("/tmp/x", "/etc/a.yaml", "/etc/pxe-fetch/x.yaml", "/srv/models", "/usr/lib/systemd/camog/x"),
    ],
)
def test_a_path_has_the_label_that_libselinux_gives_it(path: str, kind: str, policy: Path) -> None:
    program = find("selabel_lookup")
    assert program, "selabel_lookup of selinux-utils is needed"
    command = [str(program), "-b", "file", "-f", str(policy), "-k", path, "-t", str(TYPES[kind])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.partition("Default context:")[2].strip() or None
    assert contexts().label(path, TYPES[kind] | 0o644) == said, done.stdout + done.stderr


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy's file_contexts on this machine, with the files that belong to it."""
    where = tmp_path_factory.mktemp("policy")
    for path, text in files().items():
        (where / Path(path).name).write_text(text)
    return where / "file_contexts"


@pytest.mark.parametrize("line", ["/x", "/x -q u:r:t:s0", "/x -- u:r:t:s0 more"])
def test_a_line_that_is_no_specification_is_told_with_its_place(line: str) -> None:
    with pytest.raises(InputError, match=r"file_contexts:2: expected a path"):
        parse(f"# first\n{line}\n", name=f"{POLICY}/file_contexts")


def test_an_expression_that_is_none_is_told_only_where_it_could_apply() -> None:
    broken = FileContexts(specifications=parse("/etc/(.*\tu:r:t:s0\n", name="file_contexts"))
    assert broken.label("/usr/lib", stat.S_IFDIR) is None
    with pytest.raises(InputError, match="not a regular expression that pxe-pack can use: a parenthesis is not closed"):
        broken.label("/etc/x", stat.S_IFREG)


PATTERNS = [
    r"/usr/(a|ab)(c|bcd)(d*)", r"/usr/[a-c[:digit:]x-]+\.(so|bin)(\.[0-9]+)*", r"/usr/[^/]*/b{2,3}c?",
    r"/usr/.*(/.*)?x", r"/usr/(?:a|b)+?c*", r"/usr/a\d\w\s?", r"/usr/[]a]\-", r"/usr/[\w.-]+", r"/usr/a{3}",
    r"/usr/a{2,}b?", r"/a|/usr/b|x", r"/usr/(b|)c", r"/usr/[^\W_]\.x$", r"^/usr/((a*)*b)+",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_expression_matches_what_pythons_does(pattern: str) -> None:
    """The texts are made of the letters that the expressions know."""
    chance = random.Random(pattern)
    ours, theirs = compile_pattern(pattern), re.compile(f"^{posix(pattern)}\\Z", re.DOTALL)
    texts = ["/usr/" + "".join(chance.choices("abcdx.so1]-/_ ,{}", k=chance.randrange(9))) for _ in range(3000)]
    texts += ["/a", "/abc", "x", "/usr/b", "/usr/aaa", "/usr/lib.so.1", "/usr/ab/bbc", "/usr/a1b"]
    for text in texts:
        assert ours.matches(text, Usage(Limit.PATTERN_STEPS)) == bool(theirs.search(text)), text


def posix(pattern: str) -> str:
    return pattern.replace("[:digit:]", "0-9")


@pytest.mark.parametrize(
    "pattern",
    ["/usr/(([^/]+)*)*X", "/usr/(.*)*(.*)*(.*)*X", "/usr/(.?){50}.{50}X", "/usr/" + "(" * 40 + "a*" + ")*" * 40 + "X"],
)
def test_no_expression_takes_for_ever(pattern: str) -> None:
    policy = FileContexts(specifications=parse(f"{pattern}\tu:r:t:s0\n", name="file_contexts"))
    began = time.monotonic()
    assert policy.label("/usr/" + "a" * 100, stat.S_IFREG) is None
    assert time.monotonic() - began < 5


MANY = "\n".join([f"/(.*{number})*(.?){{900}}X" for number in range(9999)])


@pytest.mark.parametrize("policy", ["/.{9000}(.{500}){9000}", MANY], ids=["states", "steps"])
def test_expressions_that_take_too_much_are_refused(policy: str) -> None:
    lines = "".join(f"{line}\tu:r:t:s0\n" for line in policy.split("\n"))
    with pytest.raises(LimitError, match="its SELinux policy has more than"):
        FileContexts(specifications=parse(lines, name="file_contexts")).label("/usr/" + "a" * 100, stat.S_IFREG)


def test_an_image_with_an_expression_that_would_hang_is_packed(site: Site, packs: Packs, tmp_path: Path) -> None:
    policy = files()
    policy[f"{POLICY}/file_contexts"] += "/usr/((.*)*)*X\tsystem_u:object_r:never_t:s0\n"
    site.image = image_with_root(site.image, labelled(policy), tmp_path)
    packs("--inject", "rootfs")
