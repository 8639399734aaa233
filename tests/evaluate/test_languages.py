"""Languages of programs: one row each, found by any of their spellings, refused where no compiler is."""

import shutil

import pytest

from etude.errors import InputError
from etude.evaluate import languages
from etude.evaluate.languages import build, complete, cut, find_language, find_tools, join


def _language(name: str) -> languages.Language:
    found = find_language(name)
    assert found is not None
    return found


def test_a_language_has_many_spellings_and_an_unknown_one_is_named() -> None:
    for spelling, name in (
        ("js", "JavaScript"),
        ("CPP", "C++"),
        ("sh", "Bash"),
        ("go_test.go", "Go"),
        ("rs", "Rust"),
    ):
        assert _language(spelling).name == name
    assert find_language("py") is None and find_language("Python") is None
    with pytest.raises(InputError, match="'cobol'; expected one of Python, JavaScript, C, "):
        find_language("cobol")


def test_a_missing_compiler_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_tools.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "javac" else f"/usr/bin/{name}")
    with pytest.raises(
        InputError, match=r"need javac, which is not found; .*apt install default-jdk-headless"
    ):
        find_tools(_language("java"))
    find_tools.cache_clear()


def test_a_sample_ends_where_its_row_says_or_at_the_first_brace_at_the_margin() -> None:
    text = "  return 1;\n}\n\nint main() {}\n"
    assert cut(text, []) == "  return 1;\n}\n"
    assert cut(text, ["\n}"]) == "  return 1;"
    assert cut("  return 1;", []) == "  return 1;"
    assert cut("a b c", [" c", " b"]) == "a"


def test_tests_may_begin_with_the_brace_that_ends_a_function_and_switch_assertions_on() -> None:
    c, bash = _language("c"), _language("bash")
    assert (
        join(c, "int f() {", "}\nint main() {}")
        == "int f() {\n}\n#undef NDEBUG\n#include <assert.h>\nint main() {}\n"
    )
    assert join(c, "int f();", "int main() {}").startswith("int f();\n#undef NDEBUG\n")
    assert join(bash, "f() {", "}\nf") == "f() {\n}\nf\n"


def test_an_answer_is_whole_or_goes_on_from_the_prompt() -> None:
    prompt = "#include <vector>\n// doubles\nint f(int x) {\n"
    assert complete(prompt, "    return 2 * x;\n}\nint g;", []) == f"{prompt}    return 2 * x;\n}}\n"
    whole = "int h() { return 2; }\nint  f(int x) {\n    return h() * x;\n}"
    assert complete(prompt, whole, []) == f"#include <vector>\n{whole}"
    assert complete(prompt, whole, ["\n}"]) == f"#include <vector>\n{whole[:-2]}"


def test_the_class_that_is_run_is_the_one_with_a_main_however_a_program_is_written() -> None:
    java = _language("java")
    if shutil.which("javac") is None:
        pytest.skip("there is no javac")
    built = build(
        java,
        "class Other {}\npublic final class Two { static void main() {} }\nclass B {}",
        "0" * 32,
        1 << 29,
    )
    assert "Two.java" in built["files"] and built["run"][-1] == "Two"
    hostile = f"public class {'x' * 500} {{}}" + "class a " * 50_000
    assert max(map(len, build(java, hostile, "0" * 32, 1 << 29)["files"])) < 110


def test_a_tool_in_ones_own_folder_opens_that_file_alone(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("bin", "lib"):
        (tmp_path / name).mkdir()
    tool = tmp_path / "bin" / "node"
    tool.write_text("")
    find_tools.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: str(tool))
    monkeypatch.setattr(languages.Path, "home", lambda: tmp_path)
    tools = find_tools(_language("js"))
    find_tools.cache_clear()
    assert str(tool) in tools.runnable and str(tmp_path / "lib") not in tools.runnable
