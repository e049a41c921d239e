"""Random repositories and random edits, as data for hypothesis, and the hands that carry them out."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

NAMES = [
    *(b"a", b"b", b"dir", b"sub", b"a.txt", b"b.txt", b"c.log", b"d.bin", b"e.py"),
    *(
        b"x y",
        b'q"t',
        b"n\nl",
        b"tab\t",
        b"\xff\xfe",
        "é".encode(),
        b"back\\slash",
        b"-opt",
        b":(top)",
        b"*",
        b"!bang",
        b"#x",
    ),
]
_IGNORES = [
    b"*.log\n",
    b"dir/\n",
    b"*\n!a\n!*/\n",
    b"/a\n",
    b"!*.log\n",
    b"*.txt\r\n",
    b"sub\n",
    b"dir/*\n!dir/a.txt\n",
    b"",
]
_ATTRIBUTES = [
    *(b"* text=auto\n", b"*.txt text\n", b"*.txt eol=crlf\n", b"*.py eol=crlf\r\n", b"* -text\n", b"*.bin binary\n"),
    *(b"*.txt -diff\n", b"*.txt ident\n", b"*.py diff=python\n", b"a filter=lfs text\n", b"dir/* binary\n", b""),
]
_MODULES = b'[submodule "s"]\n\tpath = dir/sub\n\turl = ./s\n\tignore = all\n'
_LINES = [b"line %d of a longer text\n" % number for number in range(20)]
CONTENTS = [
    *(b"", b"one\n", b"no newline", b"dos\r\nlines\r\n", b"mixed\r\nlines\n", b"$Id$\n", b"def f():\n    return 1\n"),
    *(b"".join(_LINES), b"".join([*_LINES[:15], b"changed\n"]), b"".join([b"first\n", *_LINES]), b"".join(_LINES[:4])),
    *(b"\0\1\2" * 30, b"\0\1\2" * 29 + b"\r\n", b"\0", b"\0dos\r\n", b"$Id: 1234 $\n", b"-- x\n++ y\n"),
]

names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)
contents = st.sampled_from(CONTENTS)
rules = st.one_of(
    st.tuples(st.just(b".gitignore"), st.sampled_from(_IGNORES)),
    st.tuples(st.just(b".gitattributes"), st.sampled_from(_ATTRIBUTES)),
)
folders = st.one_of(st.just(b""), st.lists(names, min_size=1, max_size=2).map(b"/".join))


@dataclass(frozen=True)
class Edit:
    """One thing that a step does. ``pick`` chooses among the paths that exist, where the verb needs one."""

    verb: str
    path: bytes = b""
    content: bytes = b""
    pick: int = 0


_picks = st.integers(0, 1000)
base_edits = st.one_of(
    st.builds(Edit, st.sampled_from(["write", "write", "script"]), paths, contents),
    st.builds(Edit, st.just("link"), paths, names),
    st.builds(lambda folder, rule: Edit("write", _in(folder, rule[0]), rule[1]), folders, rules),
    st.builds(Edit, st.just("submodule"), paths),
    st.just(Edit("write", b".gitmodules", _MODULES)),
)
edits = st.one_of(
    st.builds(Edit, st.just("write"), paths, contents),
    st.builds(Edit, st.just("link"), paths, names),
    st.builds(
        Edit, st.sampled_from(["delete", "flip", "empty", "touch", "edit", "edit", "swap"]), paths, contents, _picks
    ),
    st.builds(Edit, st.sampled_from(["move", "move", "copy", "hardlink"]), paths, st.just(b""), _picks),
    st.builds(Edit, st.sampled_from(["folder", "nested", "pipe"]), paths),
    st.builds(lambda folder, rule: Edit("write", _in(folder, rule[0]), rule[1]), folders, rules),
)


def base_files(edits: list[Edit]) -> Mapping[bytes, tuple[str, bytes]]:
    """The repository that the edits make: path -> (git's mode, content). A later one replaces what is in its way."""
    files: dict[bytes, tuple[str, bytes]] = {}
    modes = {"write": "100644", "script": "100755", "link": "120000", "submodule": "160000"}
    for edit in edits:
        if edit.verb in ("link", "submodule") and edit.path.endswith((b".gitignore", b".gitattributes")):
            continue
        for path in list(files):
            if path.startswith(edit.path + b"/") or edit.path.startswith(path + b"/"):
                del files[path]
        files[edit.path] = (modes[edit.verb], edit.content)
    return files


def commit(repository: Path, files: Mapping[bytes, tuple[str, bytes]]) -> str:
    """A bare repository with one commit of exactly these blobs, whatever attributes say; gives the commit."""
    subprocess.run(["git", "init", "--quiet", "--bare", repository], check=True)
    stream = b"commit refs/heads/main\ncommitter A <a@example.com> 1700000000 +0000\ndata 1\nx\n"
    for path, (mode, content) in files.items():
        quoted = b'"' + path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'
        if mode == "160000":
            stream += b"M 160000 %s %s\n" % (b"12" * 20, quoted)
        else:
            stream += b"M %s inline %s\ndata %d\n%s\n" % (mode.encode(), quoted, len(content), content)
    subprocess.run(["git", "-C", repository, "fast-import", "--quiet"], input=stream + b"done\n", check=True)
    found = subprocess.run(["git", "-C", repository, "rev-parse", "main"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def carry_out(edit: Edit, workspace: Path) -> None:
    """Do it, replacing what is in the way; an edit that makes no sense here does nothing."""
    root = os.fsencode(workspace)
    target = root + b"/" + edit.path
    try:
        _HANDS[edit.verb](edit, root, target)
    except (NotADirectoryError, FileNotFoundError, FileExistsError, IsADirectoryError):
        return


def _in(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _existing(root: bytes) -> list[bytes]:
    found = []
    for folder, folder_names, file_names in os.walk(root):
        folder_names[:] = sorted(name for name in folder_names if name != b".git")
        found += [os.path.join(folder, name) for name in (*folder_names, *sorted(file_names)) if name != b".git"]
    return sorted(found)


def _picked(edit: Edit, root: bytes) -> bytes:
    found = _existing(root)
    if not found:
        raise FileNotFoundError
    return found[edit.pick % len(found)]


def _make_way(root: bytes, target: bytes) -> None:
    """Folders down to the target, instead of any file or link there; nothing at the target."""
    at = root
    for name in target[len(root) + 1 :].split(b"/")[:-1]:
        at += b"/" + name
        if os.path.lexists(at) and not stat.S_ISDIR(os.lstat(at).st_mode):
            os.unlink(at)
        if not os.path.lexists(at):
            os.mkdir(at)
    _remove(target)


def _are_apart(path: bytes, other: bytes) -> bool:
    """Whether neither lies in the other."""
    return not (path + b"/").startswith(other + b"/") and not (other + b"/").startswith(path + b"/")


def _remove(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _write(edit: Edit, root: bytes, target: bytes) -> None:
    if os.path.islink(target) or not os.path.isfile(target):
        _make_way(root, target)
    with open(target, "wb") as file:
        file.write(edit.content)


def _link(edit: Edit, root: bytes, target: bytes) -> None:
    _make_way(root, target)
    os.symlink(edit.content, target)


def _delete(edit: Edit, root: bytes, target: bytes) -> None:
    _remove(_picked(edit, root))


def _empty(edit: Edit, root: bytes, target: bytes) -> None:
    """Remove, and make an empty folder of the same name."""
    path = _picked(edit, root)
    _remove(path)
    os.mkdir(path)


def _flip(edit: Edit, root: bytes, target: bytes) -> None:
    path = _picked(edit, root)
    if stat.S_ISREG(os.lstat(path).st_mode):
        os.chmod(path, os.lstat(path).st_mode ^ 0o111)


def _touch(edit: Edit, root: bytes, target: bytes) -> None:
    os.utime(_picked(edit, root), follow_symlinks=False)


def _edit(edit: Edit, root: bytes, target: bytes) -> None:
    path = _picked(edit, root)
    if stat.S_ISREG(os.lstat(path).st_mode):
        with open(path, "ab") as file:
            file.write(edit.content or b"more\n")


def _swap(edit: Edit, root: bytes, target: bytes) -> None:
    """A file becomes a folder of the same name that holds it, a folder becomes a file."""
    path = _picked(edit, root)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
        with open(path, "wb") as file:
            file.write(edit.content)
    else:
        os.rename(path, path + b".moved")
        os.mkdir(path)
        os.rename(path + b".moved", path + b"/a")


def _move(edit: Edit, root: bytes, target: bytes) -> None:
    path = _picked(edit, root)
    if _are_apart(path, target):
        _make_way(root, target)
        try:
            os.rename(path, target)
        except OSError:  # EXDEV: an overlay does not rename folders of its base; mv(1) copies
            shutil.copytree(path, target, symlinks=True, copy_function=_copy_one)
            shutil.rmtree(path)


def _copy(edit: Edit, root: bytes, target: bytes) -> None:
    path = _picked(edit, root)
    if _are_apart(path, target):
        _make_way(root, target)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.copytree(path, target, symlinks=True, copy_function=_copy_one)
        else:
            _copy_one(path, target)


def _copy_one(source: bytes, target: bytes) -> None:
    if stat.S_ISFIFO(os.lstat(source).st_mode):
        os.mkfifo(target)
    elif os.path.islink(source):
        os.symlink(os.readlink(source), target)
    else:
        shutil.copy2(source, target)


def _hardlink(edit: Edit, root: bytes, target: bytes) -> None:
    path = _picked(edit, root)
    if stat.S_ISREG(os.lstat(path).st_mode) and _are_apart(path, target):
        _make_way(root, target)
        os.link(path, target)


def _folder(edit: Edit, root: bytes, target: bytes) -> None:
    _make_way(root, target)
    os.mkdir(target)


def _nested(edit: Edit, root: bytes, target: bytes) -> None:
    """A repository with a commit and an ignored file in its own .git/info/exclude."""
    _make_way(root, target)
    os.mkdir(target)
    with open(target + b"/inside.txt", "wb") as file:
        file.write(b"inside\n")
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)


def _pipe(edit: Edit, root: bytes, target: bytes) -> None:
    if not os.path.lexists(target):
        _make_way(root, target)
        os.mkfifo(target)


_HANDS = {
    "write": _write,
    "link": _link,
    "delete": _delete,
    "empty": _empty,
    "flip": _flip,
    "touch": _touch,
    "edit": _edit,
    "swap": _swap,
    "move": _move,
    "copy": _copy,
    "hardlink": _hardlink,
    "folder": _folder,
    "nested": _nested,
    "pipe": _pipe,
}
