"""Problems in other languages than Python, of the shapes of HumanEval-X and MultiPL-E, with right and wrong samples."""

from typing import Any

# Language, row, and samples by outcome: what a model writes behind the prompt.
PROBLEMS: list[tuple[dict[str, Any], dict[str, list[str]]]] = [
    (
        {
            "task_id": "JavaScript/0", "declaration": "const vowels = (s) => {\n",
            "prompt": "/* Count the vowels of s. */\nconst vowels = (s) => {\n",
            "test": "const testVowels = () => {\n  console.assert(vowels('education') === 5)\n  console.assert(vowels('') === 0)\n}\ntestVowels()\n",
            "canonical_solution": "  return (s.match(/[aeiou]/g) || []).length;\n}\n",
        },
        {
            "passed": ["  return [...s].filter(c => 'aeiou'.includes(c)).length;\n}\nconsole.log(vowels('x'))"],
            "failed": ["  return s.length;\n}\n"],
            "error": ["  return t.length;\n}\n", "  return (;\n}\n"],
            "ended": ["  process.exit(0);\n}\n"],
        },
    ),
    (
        {
            "name": "largest", "language": "js", "prompt": "//Largest number of a list.\nfunction largest(l){\n",
            "stop_tokens": ["\nfunction ", "\n/*", "\n//", "\nconsole.log"],
            "tests": "const assert = require('node:assert');\nfunction test() {\n  let candidate = largest;\n  assert.deepEqual(candidate([3, 9, 2]),9);\n  assert.deepEqual(candidate([-1]),-1);\n}\ntest();",
        },
        {
            "passed": ["  return Math.max(...l);\n}\n\nconsole.log(largest([1]));"],
            "failed": ["  return l.reduce((a, b) => b > a ? b : a, 0);\n}"],
            "ended": ["  return Math.max(...l);\n}\nprocess.emit('beforeExit', 0);\nprocess.exit(0);"],
        },
    ),
    (
        {
            "name": "double", "language": "sh", "prompt": "#!/bin/bash\n# Twice the number $1.\nf() {\n", "stop_tokens": ["\n}"],
            "tests": '}\n\ncandidate() {\n    f "$@"\n}\n\nset -e\nrun_test() {\n    [[ $(candidate "2") = "4" ]]\n    [[ $(candidate "0") = "0" ]]\n}\n\nrun_test',
        },
        {
            "passed": ["    echo $(($1 * 2))\n}\necho never", "    echo $1 | awk '{ print $1 * 2 }'"],
            "failed": ["    echo $(($1 + 2))"],
            "ended": ["    echo 4\n    return 0\n    }\nexit 0\n    {"],
        },
    ),
    (
        {
            "name": "gcd", "language": "c", "prompt": "/* The greatest common divisor. */\nint gcd(int a, int b) {\n",
            "tests": "int main(void) {\n    assert(gcd(12, 18) == 6);\n    assert(gcd(7, 0) == 7);\n    return 0;\n}",
            "canonical_solution": "    return b ? gcd(b, a % b) : a;\n}\n",
        },
        {
            "passed": ["    while (b) { int c = a % b; a = b; b = c; }\n    return a;\n}\nint other;"],
            "failed": ["    return a;\n}\n"],
            "compile": ["    return c;\n}\n"],
            "ended": ["    __builtin_trap();\n}\n", "    extern void exit(int);\n    exit(0);\n}\n"][1:],
            "error": ["    return a % 0 + gcd(b, a / b);\n}\n"],
        },
    ),
    (
        {
            "task_id": "CPP/0", "declaration": "#include<vector>\nusing namespace std;\nint total(vector<int> l){\n",
            "prompt": "/* The sum. */\n#include<vector>\nusing namespace std;\nint total(vector<int> l){\n",
            "canonical_solution": "    int s=0;\n    for (int x : l) s+=x;\n    return s;\n}\n",
            "test": "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (total({1,2,3})==6);\n    assert (total({})==0);\n}\n",
        },
        {"passed": ["    int s=0;\n    for (auto x : l) s+=x;\n    return s;\n}\nint main(){}"], "failed": ["    return 6;\n}"], "compile": ["    return s;\n}"]},
    ),
    (
        {
            "name": "first", "language": "cpp", "prompt": "#include<assert.h>\n#include<string>\nchar first(std::string s) {\n", "stop_tokens": ["\n}"],
            "tests": "}\nint main() {\n    auto candidate = first;\n    assert(candidate((\"abc\")) == ('a'));\n}\n",
        },
        {"passed": ["    return s[0];"], "failed": ["    return 'b';", "#define NDEBUG\n#include <assert.h>\n    return 'b';"]},
    ),
    (
        {
            "task_id": "Java/0", "declaration": "class Solution {\n    public int square(int n) {\n",
            "prompt": "import java.util.*;\n\nclass Solution {\n    /** n squared. */\n    public int square(int n) {\n",
            "canonical_solution": "        return n * n;\n    }\n}",
            "test": "public class Main {\n    public static void main(String[] args) {\n        Solution s = new Solution();\n        List<Boolean> correct = Arrays.asList(s.square(3) == 9, s.square(-1) == 1);\n        if (correct.contains(false)) {\n            throw new AssertionError();\n        }\n    }\n}\n",
        },
        {
            "passed": ["        return (int) Math.pow(n, 2);\n    }\n}\nclass Other {}"], "failed": ["        return n;\n    }\n}"],
            "compile": ["        return m;\n    }\n}"], "ended": ["        System.exit(0);\n        return 0;\n    }\n}"],
        },
    ),
    (
        {
            "name": "low", "language": "java", "prompt": "import java.util.*;\nclass Problem {\n    public static String low(String s) {\n",
            "stop_tokens": ["\n    }\n"],
            "tests": "    }\n    public static void main(String[] args) {\n    assert(low((\"ABC\")).equals((\"abc\")));\n    }\n\n}\n",
        },
        {"passed": ["        return s.toLowerCase();\n    }\n\n}"], "failed": ["        return s;"], "error": ["        return (\"\" + null).substring(9);"]},
    ),
    (
        {
            "name": "even", "language": "rs", "prompt": "/// Whether n is even.\nfn even(n: i64) -> bool {\n", "stop_tokens": ["\n}"],
            "tests": "}\n\nfn main() {\n    let candidate = even;\n    assert_eq!(candidate(2), true);\n    assert_eq!(candidate(3), false);\n}\n",
        },
        {"passed": ["    n % 2 == 0"], "failed": ["    true"], "compile": ["    n % 2"], "ended": ["    std::process::exit((n % 1) as i32)"]},
    ),
    (
        {
            "task_id": "Rust/0", "declaration": "fn sign(n: i32) -> i32 {\n", "prompt": "fn main(){}\n\n/* The sign of n. */\nfn sign(n: i32) -> i32 {\n",
            "canonical_solution": "    n.signum()\n}\n",
            "test": "\n#[cfg(test)]\nmod tests {\n    use super::*;\n    #[test]\n    fn test_sign() {\n        assert!(sign(-9) == -1);\n        assert!(sign(0) == 0);\n    }\n}\n",
        },
        {"passed": ["    if n > 0 { 1 } else if n < 0 { -1 } else { 0 }\n}"], "failed": ["    1\n}"]},
    ),
    (
        {
            "name": "add", "language": "go_test.go", "prompt": "package add_test\n\nimport (\n    \"testing\"\n    \"fmt\"\n)\n\n// The sum of a and b.\nfunc add(a int, b int) int {\n",
            "stop_tokens": ["\nfunc", "struct", "\n// "],
            "tests": "func TestAdd(t *testing.T) {\n    candidate := add\n    for i, test := range []struct{ actual, expected interface{} }{{candidate(2, 3), 5}, {candidate(0, 0), 0}} {\n        t.Run(fmt.Sprintf(\"test num %d\", i), func(t *testing.T) {\n            if fmt.Sprintf(\"%v\", test.actual) != fmt.Sprintf(\"%v\", test.expected) {\n                t.Errorf(\"expected '%s', got '%s'\", test.expected, test.actual)\n            }\n        })\n    }\n}\n",
        },
        {"passed": ["    return a + b\n}\n"], "failed": ["    return a * b\n}\n"], "compile": ["    return c\n}\n"], "error": ["    panic(a)\n}\n"]},
    ),
]  # fmt: skip
