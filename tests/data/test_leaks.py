"""Problems of benchmarks are found in documents as plain sets of tokens find them."""

import random
from pathlib import Path

import pytest

from etude.data.gate import examine
from etude.data.leaks import Problems, find_planted, read_problems
from etude.data.page import describe_gate
from etude.data.shingles import shingle
from etude.errors import InputError
from tests.data.planting import SHARED, functions, needs_shared, read, recipe_of, shingles, write


@needs_shared
def test_planted_benchmark_solutions_are_found_and_clean_data_is_not_flagged(tmp_path: Path) -> None:
    human, mbpp = SHARED / "humaneval" / "HumanEval.jsonl.gz", SHARED / "mbpp" / "mbpp.jsonl"
    clean = read(SHARED / "codealpaca" / "codealpaca_new.jsonl") + read(
        SHARED / "codealpaca" / "codealpaca_2k.jsonl"
    )
    clean = [row for row in clean if row["output"].strip()]
    draw = random.Random(3)
    rows = [*clean]
    problems = {("human", row["task_id"]): row["prompt"] + row["canonical_solution"] for row in read(human)}
    problems |= {("mbpp", str(row["task_id"])): row["code"] for row in read(mbpp)}
    for code in problems.values():
        rows.append(
            {"instruction": "Write it.", "input": "", "output": f"# A function.\n{code}\nprint('done')\n"}
        )
    draw.shuffle(rows)
    gate = examine(
        recipe_of(write(tmp_path / "rows.jsonl", rows), leakage={"benchmarks": [str(human), str(mbpp)]})
    )
    names = gate.manifest["benchmarks"]
    found = {
        (("human", "mbpp")[bench], names[bench]["problems"][problem])
        for _, bench, problem in gate.planted.tolist()
    }
    assert found == set(problems)
    flagged = set(gate.planted[:, 0].tolist())
    is_planted = [row["instruction"] == "Write it." for row in rows]
    false = [index for index in flagged if not is_planted[index]]
    assert len(false) <= len(clean) / 1000


def test_a_benchmark_says_how_many_of_its_problems_are_looked_for(tmp_path: Path) -> None:
    asked = (
        "Write a function that returns the largest of the numbers that it is given, or nothing where it is "
        "given none."
    )
    problems = [
        {"question": "Add.", "answer": "a + b"},
        {"question": asked, "answer": "max"},
        {"question": "Add two."},
    ]
    bench = write(tmp_path / "bench.jsonl", problems)
    gate = examine(
        recipe_of(write(tmp_path / "rows.jsonl", functions(20)), leakage={"benchmarks": [str(bench)]})
    )
    (row,) = describe_gate(gate)["benchmarks"]
    assert (row["problems"], row["looked_for"], row["found"]) == (3, 1, 0)


def test_a_benchmark_without_problems_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", functions(5))
    bench = write(tmp_path / "bench.jsonl", [{"number": 1}])
    with pytest.raises(InputError, match=r"bench.jsonl:1 is no evaluation problem"):
        examine(recipe_of(path, leakage={"benchmarks": [str(bench)]}))


def test_a_problem_is_found_where_enough_of_its_shingles_are(tmp_path: Path) -> None:
    draw = random.Random(4)
    answers = [row["text"] for row in functions(30)] + ["a b c d e f g", "return a + b"]
    path = write(
        tmp_path / "bench.jsonl", [{"id": f"p{n}", "answer": text} for n, text in enumerate(answers)]
    )
    problems, names = read_problems([str(path)])
    assert names == [[f"p{number}" for number in range(32)]]
    documents = []
    for answer in answers * 4:
        words = answer.split()
        for _ in range(draw.randrange(3)):
            words[draw.randrange(len(words))] = "other"
        documents.append(" ".join([*functions(1, seed=draw.randrange(99))[0]["text"].split(), *words]))
    expected = []
    for index, document in enumerate(documents):
        for number, answer in enumerate(answers):
            wanted, shared = shingles(answer), shingles(answer) & shingles(document)
            share = 1 if len(wanted) < 8 else 0.8
            if len(wanted) >= 5 and len(shared) >= share * len(wanted):
                expected.append([index, 0, number])
    assert find_planted(*shingle(documents), problems).tolist() == expected and 20 < len(expected) < len(
        documents
    )
    problems.save(tmp_path)
    assert find_planted(*shingle(documents), Problems.load(tmp_path)).tolist() == expected


def test_the_body_of_a_function_is_looked_for_with_its_first_line(tmp_path: Path) -> None:
    row = {"prompt": "def add(a, b):\n", "canonical_solution": "    return a + b\n", "entry_point": "add"}
    problems, _ = read_problems([str(write(tmp_path / "bench.jsonl", [row]))])
    assert find_planted(*shingle(["x = 1\ndef add(a, b):\n    return a + b\n"]), problems).tolist() == [
        [0, 0, 0]
    ]
    assert find_planted(*shingle(["def total(a, b):\n    return a + b\n"]), problems).tolist() == []
