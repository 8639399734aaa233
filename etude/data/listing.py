"""The sources of a recipe, and the files of a source: a file, a folder with a glob, the standard library."""

import fnmatch
import os
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from etude import durable
from etude.data.unpack import unreadable
from etude.errors import InputError
from etude.recipe.data import Source
from etude.recipe.schema import Recipe
from etude.records.folder import is_run_folder

USES = ("train", "validation", "test")
_MOST_FILES, _MOST_ENTRIES, _MOST_PARTS = 1_000_000, 4_000_000, 32
# Not for learning from: installed packages, tests, and a hundred copies of one module of code pages.
_STDLIB_WITHOUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "encodings"}
_OF_THE_SYSTEM = tuple(map(Path, ("/proc", "/sys", "/dev")))


def list_sources(recipe: Recipe) -> list[tuple[str, Source]]:
    """The sources of a recipe with their uses, in reading order."""
    data = recipe.data
    held_out = data.validation if isinstance(data.validation, list) else []
    return [
        (use, source) for use, sources in zip(USES, (data.train, held_out, data.test)) for source in sources
    ]


def missing_source(recipe: Recipe) -> str | None:
    """The path of the first source of a recipe that is not on this machine."""
    paths = (source.path for _, source in list_sources(recipe) if source.path is not None)
    return next((path for path in paths if not Path(path).exists()), None)


def require_rows(recipe: Recipe, rows: int | None) -> None:
    """Refuse a recipe whose rows nobody knows: of passes over data that are not here. Raises: InputError."""
    if rows is None and recipe.train.steps is None and (path := missing_source(recipe)) is not None:
        raise InputError(f"how many rows there are is not known, as {path} is not here; give --rows N")


def list_files(source: Source) -> list[Path]:
    """The files of a source, sorted by relative path. Raises: InputError if there is no plain file."""
    if source.source == "python-stdlib":
        return _list_stdlib()
    root = root_of(source)
    try:
        mode = root.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{root} does not exist; give the path of a file or folder") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise unreadable(root, error) from None
    if stat.S_ISDIR(mode):
        return _list_folder(root, source.glob or "**/*")
    if stat.S_ISREG(mode) and source.glob is None:
        return [root]
    wrong = f"is a file, and glob {source.glob!r} chooses files of a folder; leave glob out"
    if not stat.S_ISREG(mode):
        wrong = "is not a plain file but a pipe, socket or device; save its content into a file"
    raise InputError(f"{root} {wrong}")


def root_of(source: Source) -> Path:
    assert source.path is not None, "rules.py lets no source through without a path"
    return Path(source.path)


def list_own_folders(source: Source) -> list[Path]:
    """Folders within a source that etude filled itself, sorted: no data, and changing while it runs."""
    if source.path is None or not root_of(source).is_dir():
        return []
    return sorted(Path(entry.path) for entry in _walk(root_of(source)) if entry.is_dir(follow_symlinks=False))


def _list_stdlib() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _STDLIB_WITHOUT]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    if not files:
        raise InputError(
            f"python-stdlib has no .py files in {root}; use a Python that was installed with its sources"
        )
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def _list_folder(root: Path, pattern: str) -> list[Path]:
    parts, inside = _split_pattern(pattern), root.resolve()
    wrong, files, before = "", [], len(str(root)) + 1
    if inside == Path("/") or any(inside.is_relative_to(folder) for folder in _OF_THE_SYSTEM):
        wrong = "is a folder of the system, not of data; give the folder that holds the data"
    elif inside.is_relative_to(os.path.realpath(durable.cache_root())):
        wrong = "is in $ETUDE_CACHE, which etude fills; give another folder, or set ETUDE_CACHE to one"
    for entry in [] if wrong else _walk(root):
        names = entry.path[before:].split("/")
        if _matches(names, parts) and _is_file_inside(entry, inside):
            files.append(Path(root, *names))
            if len(files) > _MOST_FILES:
                wrong = f"has over {_MOST_FILES:,} files that match glob {pattern!r}; choose fewer"
                break
    if not files and not wrong:
        wrong = f"has no file that matches glob {pattern[:60]!r}; give a folder with files, or another glob"
    if wrong:
        raise InputError(f"{root} {wrong}")
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def _is_file_inside(entry: "os.DirEntry[str]", inside: Path) -> bool:
    """True for a plain file; a link that leads outside would bring in what nobody named."""
    if not entry.is_symlink():
        return entry.is_file()
    return Path(os.path.realpath(entry.path)).is_relative_to(inside) and Path(entry.path).is_file()


def _split_pattern(pattern: str) -> list[str]:
    """The parts of a glob. Raises: InputError if it is none, or leads out of the folder."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    # Of several ** one after another, one says the same.
    parts = [part for at, part in enumerate(parts) if part != "**" or at == 0 or parts[at - 1] != "**"]
    parts += ["*"] if parts[-1:] == ["**"] else []
    wrong = ""
    if pattern.startswith("/") or ".." in parts or not parts:
        wrong = "it has to name files within the folder"
    elif any("**" in part and part != "**" for part in parts):
        wrong = "'**' stands for whole folders, between slashes"
    elif len(parts) > _MOST_PARTS:
        wrong = f"it has over {_MOST_PARTS} parts"
    if wrong:
        raise InputError(f"glob {pattern[:60]!r} is no pattern for files of a folder: {wrong}; try '**/*.py'")
    return parts


def _walk(root: Path) -> Iterator["os.DirEntry[str]"]:
    """Walk through a folder: files, links, which may go in circles, and folders that etude filled itself.

    These, runs and its cache, are not entered; hidden entries are passed over. Raises: InputError if a folder
    cannot be read, or if there is too much to look through.
    """
    count, folders, cache = 0, [str(root)], os.path.realpath(durable.cache_root())
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    count += 1
                    if count > _MOST_ENTRIES:
                        what = f"{_MOST_ENTRIES:,} files and folders"
                        raise InputError(f"{root} holds over {what}; give a smaller one")
                    if entry.name.startswith("."):
                        continue
                    is_folder = entry.is_dir(follow_symlinks=False)
                    if is_folder and not _is_own(entry, cache):
                        folders.append(entry.path)
                    else:
                        yield entry
        except OSError as error:
            raise unreadable(folder, error) from None


def _is_own(entry: "os.DirEntry[str]", cache: str) -> bool:
    return is_run_folder(Path(entry.path)) or os.path.realpath(entry.path) == cache


def _matches(names: list[str], parts: list[str]) -> bool:
    """True if a path matches a glob, both part by part; ** stands for any number of folders, also none."""
    places = {0}  # how many parts of the glob the names so far may have used up
    for name in names:
        places |= {at + 1 for at in places if parts[at : at + 1] == ["**"]}
        stay = {at for at in places if parts[at : at + 1] == ["**"]}
        used = {at + 1 for at in places - stay if at < len(parts) and fnmatch.fnmatchcase(name, parts[at])}
        places = stay | used
    return len(parts) in places
