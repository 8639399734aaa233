"""The languages of programs that are run against tests: one row each of commands, limits and ends.

A program is a sample with its tests behind it, as HumanEval-X and MultiPL-E have them. Beside it stands a
file of ours, the mark: it takes a nonce from standard input before the program begins, and writes it after
the last test. Python has two interpreters instead (`sides.py`).
"""

import functools
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError

MARK_BYTES = 32
PYTHON = "python"
_MAIN = "__wrap_main"  # the linker leads the start of a program to it, and from there to the program's own
_MARK_OF_MAIN = f"""\
#include <stdio.h>
#include <unistd.h>
int __real_main(int, char **, char **);
int {_MAIN}(int count, char **words, char **environment) {{
    char mark[{MARK_BYTES}];
    int found = read(0, mark, sizeof mark), status = __real_main(count, words, environment);
    fflush(stdout);
    return status ? status : found != write(1, mark, found);
}}
"""
_MARK_OF_JAVA = f"""\
import java.lang.reflect.*;
public final class EtudeMark {{
    public static void main(String[] words) throws Throwable {{
        java.io.PrintStream out = System.out;
        byte[] mark = System.in.readNBytes({MARK_BYTES});
        try {{
            Method main = Class.forName(words[0]).getDeclaredMethod("main", String[].class);
            main.setAccessible(true);
            main.invoke(null, (Object) new String[0]);
        }} catch (InvocationTargetException error) {{
            throw error.getCause();
        }}
        out.write(mark, 0, mark.length);
        out.flush();
    }}
}}
"""
# console.assert says what does not hold, and goes on; as a test it has to end.
_MARK_OF_NODE = f"""\
'use strict';
const {{ readSync, writeSync }} = require('fs');
const mark = Buffer.alloc({MARK_BYTES});
readSync(0, mark);
const must = (holds, ...words) => {{ if (!holds) throw new Error('Assertion failed: ' + words.join(' ')); }};
Object.defineProperty(console, 'assert', {{ value: must, writable: false, configurable: false }});
Object.freeze(require('assert'));
Object.freeze(require('assert').strict);
let isOver = false;
process.once('beforeExit', () => {{ if (isOver && !process.exitCode) writeSync(1, mark); }});
require('./program.js');
isOver = true;
"""
_MARK_OF_GO = f"""\
package $PACKAGE
import ("io"; "os"; "testing")
func TestMain(tests *testing.M) {{
    mark := make([]byte, {MARK_BYTES})
    io.ReadFull(os.Stdin, mark)
    status := tests.Run()
    if status == 0 {{ os.Stdout.Write(mark) }}
    os.Exit(status)
}}
"""
_JVM = (
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:-UseContainerSupport",
    "-XX:TieredStopAtLevel=1",
    "-Xss4m",
)
_NDEBUG = "#undef NDEBUG\n#include <assert.h>\n"
_LINK = ("-Wl,--wrap=main", "-lm")


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language that programs are compiled and run in.

    name       as people write it
    spellings  of the field `language`, and of the prefix of `task_id`
    program    name of the file of sample and tests; $CLASS is that of the public class
    mark       name and text of the file that writes the nonce
    compile    commands in the folder of the program; $TOOLS is where a tool is installed
    run        the command that runs the tests; $MEMORY is its memory in MiB
    install    packages of Debian
    root       command that prints the folder in which the compiler's files are, where it is not beside it
    reads      folder and pattern of files beside those of the tools
    starts     whether the program may start others
    before     what stands before the tests, so that a sample cannot switch them off
    """

    name: str
    spellings: tuple[str, ...]
    program: str
    mark: tuple[str, str]
    compile: tuple[tuple[str, ...], ...] = ()
    run: tuple[str, ...] = ("./program",)
    install: str
    root: tuple[str, ...] = ()
    reads: tuple[tuple[str, str], ...] = ()
    starts: bool = False
    before: str = ""

    @property
    def tools(self) -> list[str]:
        """The commands that have to be installed."""
        words = [command[0] for command in (*self.compile, self.run)]
        return list(dict.fromkeys(word for word in words if "/" not in word))


_LANGUAGES = (
    Language(
        name="JavaScript", spellings=("javascript", "js", "node"), program="program.js",
        mark=("mark.js", _MARK_OF_NODE), install="nodejs",
        run=("node", "--max-old-space-size=$MEMORY", "--stack-size=900", "mark.js"),
    ),
    Language(
        name="C", spellings=("c",), program="program.c", mark=("mark.c", _MARK_OF_MAIN),
        install="gcc libc6-dev", before=_NDEBUG,
        compile=(("gcc", "-w", "-O1", "-UNDEBUG", "-o", "program", "program.c", "mark.c", *_LINK),),
    ),
    Language(
        name="C++", spellings=("cpp", "c++", "cc"), program="program.cpp", mark=("mark.c", _MARK_OF_MAIN),
        install="g++", before=_NDEBUG,
        compile=(
            ("gcc", "-w", "-c", "mark.c"),
            ("g++", "-w", "-O1", "-std=c++17", "-UNDEBUG", "-o", "program", "program.cpp", "mark.o", *_LINK),
        ),
    ),
    Language(
        name="Java", spellings=("java",), program="$CLASS.java", mark=("EtudeMark.java", _MARK_OF_JAVA),
        install="default-jdk-headless", reads=(("/etc", "java-*"),),
        compile=(
            (
                "javac", "-nowarn", *(f"-J{each}" for each in _JVM), "-J-Xmx384m",
                "$CLASS.java", "EtudeMark.java",
            ),
        ),
        run=("java", *_JVM, "-Xmx$MEMORYm", "-ea", "-cp", ".", "EtudeMark", "$MAIN"),
    ),
    Language(
        name="Bash", spellings=("bash", "sh", "shell"), program="program.sh", mark=("mark.sh", ""),
        install="bash", run=("bash", "-e", "program.sh"), starts=True,
    ),
    Language(
        name="Go", spellings=("go", "go_test.go"), program="program_test.go",
        mark=("mark_test.go", _MARK_OF_GO),
        install="golang-go", root=("go", "env", "GOROOT"),
        compile=(("go", "test", "-c", "-vet=off", "-o", "program", "program_test.go", "mark_test.go"),),
    ),
    Language(
        name="Rust", spellings=("rust", "rs"), program="program.rs", mark=("mark.c", _MARK_OF_MAIN),
        install="rustc", root=("rustc", "--print", "sysroot"),
        compile=(
            ("gcc", "-w", "-c", "mark.c"),
            (
                "rustc", "-Awarnings", "-Copt-level=1", "-Clink-arg=mark.o", "-Clink-arg=-Wl,--wrap=main",
                "$TEST", "-o", "program", "program.rs",
            ),
        ),
    ),
)  # fmt: skip
_SYSTEM = ("/usr/bin", "/bin", "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/libexec", "/usr/include")
_BESIDE = ("bin", "lib", "lib64", "libexec", "include", "conf", "pkg", "src")
_SETTINGS = {
    "LANG": "C.UTF-8",
    "OPENSSL_CONF": "/dev/null",
    "GO111MODULE": "off",
    "CGO_ENABLED": "0",
    "GOFLAGS": "-p=1",
}
# Lines of a prompt that an answer needs and may leave out.
_NEEDED = re.compile(r"\s*(#include|#define|import|using|use|package)\b")


def find_language(spelling: str) -> Language | None:
    """The language that a row names; None of Python. Raises: InputError if it is not known."""
    asked = spelling.lower()
    if asked in ("python", "py"):
        return None
    for language in _LANGUAGES:
        if asked in language.spellings:
            return language
    known = ", ".join(["Python", *(language.name for language in _LANGUAGES)])
    raise InputError(f"language is {spelling[:30]!r}; expected one of {known}")


def join(language: Language, sample: str, tests: str) -> str:
    """The program of a sample and its tests; they may begin with the brace that ends its function."""
    first, line, rest = tests.partition("\n") if tests.startswith("}") else ("", "", tests)
    return f"{sample}\n{first}{line}{language.before}{rest}\n"


def cut(text: str, stops: Sequence[str]) -> str:
    """The text of a model up to one that ends it; without any, to its first brace at the margin."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    if stops:
        return text[: min(places, default=len(text))]
    body, brace, _ = text.partition("\n}")
    return body + brace + "\n" * bool(brace)


def complete(prompt: str, code: str, stops: Sequence[str]) -> str:
    """The program of an answer: all of it if it has the last line of the prompt, else behind the prompt."""
    signature = "".join((prompt.rstrip().splitlines() or [""])[-1].split())
    lines = code.splitlines()
    at = next((number for number, line in enumerate(lines) if "".join(line.split()) == signature), None)
    if at is None or not signature:
        return prompt + cut(code, stops)
    missing = [line for line in prompt.splitlines() if _NEEDED.match(line) and line not in lines]
    after = "\n".join(lines[at + 1 :])
    return "\n".join([*missing, *lines[: at + 1], cut(f"\n{after}", stops)[1:] if stops else after])


def build(language: Language, program: str, nonce: str, memory_bytes: int) -> dict[str, Any]:
    """All that a bare process needs to compile and run a program. Raises: InputError as `find_tools`."""
    tools = find_tools(language)
    mark, text = language.mark
    if language.starts:
        program += f"\nprintf %s {nonce}\n"
    values = {
        "$CLASS": _found(r"\bpublic\s+(?:final\s+)?class\s+(\w{1,99})", program, "Main"),
        "$MAIN": _found(r".*\bclass\s+(\w{1,99})", program[: program.rfind("static void main")], "Main"),
        "$PACKAGE": _found(r"^\s*package\s+(\w{1,99})", program, "main"),
        "$MEMORY": str((memory_bytes >> 20) * 5 // 8),
        "$TEST": "--test" if "#[test]" in program else "--crate-type=bin",
    }

    def fill(word: str) -> str:
        for name, value in values.items():
            word = word.replace(name, value)
        return word

    commands = [
        [tools.paths.get(word, fill(word)) for word in command]
        for command in (*language.compile, language.run)
    ]
    return {
        "files": {fill(language.program): program, mark: fill(text)},
        "compile": commands[:-1], "run": commands[-1],
        "readable": tools.readable, "runnable": tools.runnable, "starts": language.starts,
        "path": tools.path, "settings": _SETTINGS, "nonce": nonce,
    }  # fmt: skip


@dataclass(frozen=True)
class Tools:
    """The places of the commands of a language, and of the files that they read."""

    paths: dict[str, str]
    path: str
    readable: list[str]
    runnable: list[str]


@functools.cache
def find_tools(language: Language) -> Tools:
    """The tools of a language on this machine. Raises: InputError if one is missing."""
    missing = [tool for tool in language.tools if shutil.which(tool) is None]
    if missing:
        what, are = " and ".join(missing), "is" if len(missing) == 1 else "are"
        advice = f"install it (Debian: apt install {language.install}), or leave these problems out"
        raise InputError(f"problems in {language.name} need {what}, which {are} not found; {advice}")
    root = Path(_say(language.root)).resolve() if language.root else None
    paths, homes = {}, {*([root] if root else [])}
    for tool in language.tools:
        own = root / "bin" / tool if root else None
        place = own if own and own.is_file() else Path(shutil.which(tool) or tool).resolve()
        paths[tool] = str(place)
        homes.add(place.parent.parent)
    # A tool in one's own bin is no reason to read what lies beside it.
    public = [home for home in homes if home not in (Path.home(), Path("/"), Path("/usr"))]
    beside = [str(home / name) for home in public for name in _BESIDE if (home / name).is_dir()]
    readable = [str(each) for folder, name in language.reads for each in sorted(Path(folder).glob(name))]
    path = ":".join(dict.fromkeys([*(str(Path(each).parent) for each in paths.values()), "/usr/bin", "/bin"]))
    return Tools(paths, path, readable, [*_SYSTEM, *beside, *paths.values()])


def _say(command: Sequence[str]) -> str:
    """The output of a command. Raises: InputError if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{' '.join(command)} does not work ({error}); reinstall it") from None
    return done.stdout.strip()


def _found(pattern: str, program: str, otherwise: str) -> str:
    found = re.search(pattern, program, re.DOTALL | re.MULTILINE)
    return found[1] if found else otherwise
