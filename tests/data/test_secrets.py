"""What is taken for a secret, and what only stands for one."""

import itertools
import random
import string
import sysconfig
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etude.data.secrets import find, redact, redact_parts

LETTERS = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def drawn(length: int, alphabet: str = LETTERS, seed: int = 17) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))


def private_key(kind: str = "RSA ", line: str = "\n") -> str:
    body = line.join(drawn(64, LETTERS + "+/", seed) for seed in range(6))
    return f"-----BEGIN {kind}PRIVATE KEY-----{line}{body}{line}-----END {kind}PRIVATE KEY-----"


# Put together here, so that nothing in this file looks like a secret itself.
SECRETS = {
    "AWS access key id": [kind + "IA" + drawn(16, string.ascii_uppercase + "234567") for kind in ("AK", "AS")],
    "GitHub token": [f"gh{kind}_" + drawn(36) for kind in "pousr"] + ["github" + "_pat_" + drawn(22) + "_" + drawn(59)],
    "GitLab token": ["gl" + "pat-" + drawn(20, LETTERS + "-_")],
    "Slack token": ["xox" + "b-270418735106-" + drawn(24), "xapp" + "-1-" + drawn(60)],
    "Slack webhook": ["hooks.slack.com" + "/services/T02B8KQ41/B05C7ZM93/" + drawn(24)],
    "Stripe key": ["sk" + "_live_" + drawn(24), "rk" + "_test_" + drawn(99)],
    "Google key": ["AI" + "za" + drawn(35, LETTERS + "-_")],
    "Google client secret": ["GOC" + "SPX-" + drawn(28)],
    "Google token": ["ya29" + "." + drawn(120, LETTERS + "-_")],
    "Anthropic key": ["sk-" + "ant-api03-" + drawn(93, LETTERS + "-_")],
    "OpenAI key": ["sk-" + drawn(48), "sk-" + "proj-" + drawn(120, LETTERS + "-_")],
    "Hugging Face token": ["hf" + "_" + drawn(34, string.ascii_letters)],
    "npm token": ["npm" + "_" + drawn(36)],
    "PyPI token": ["pypi" + "-AgEIcHlwaS5vcmc" + drawn(150, LETTERS + "-_")],
    "JSON web token": [".".join(["ey" + "J" + drawn(33), "ey" + "J" + drawn(90), drawn(43)])],
    "private key": [
        private_key(), private_key(""), private_key("EC "), private_key("OPENSSH "), private_key("", "\\n"),
        private_key().replace("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n", 1),
        private_key().split("-----END")[0],
    ],
}  # fmt: skip
AWS_SECRET = drawn(40, LETTERS + "+/")
# What stands before a value, the value, and what stands after it.
ASSIGNED = [
    ('api_key = "', drawn(32), '"'),
    ("API-KEY: '", drawn(20), "'"),
    ('{"apiKey": "', drawn(32, HEX), '"}'),
    ('os.environ["DB_PASSWORD"] = "', drawn(16), '"'),
    ('password: str = "', drawn(20, LETTERS + "!$%&"), '"'),
    ("client_secret=b'", drawn(24), "'"),
    ("const authToken = `", drawn(40), "`;"),
    ("SESSION_TOKEN=", drawn(40), "\nDEBUG=1"),
    ("  private_key: ", drawn(64, HEX), "\n"),
    ('if token == "', drawn(24), '":'),
    ("aws_secret_access_key = ", AWS_SECRET, ""),
    ('"SecretAccessKey": "', AWS_SECRET, '"'),
    ("postgres://app:", "tr0ub4dor", "@db.internal:5432/shop"),
    ("git clone https://ci:", drawn(12), "@git.corp.net/x.git"),
]
HARMLESS = [
    'api_key = "your-api-key-goes-here-1"',
    'api_key = "xxxxxxxxxxxxxxxxxxxxxxxx"',
    'api_key = "<YOUR_API_KEY_FROM_2024>"',
    'api_key = "${API_KEY_FROM_VAULT_1}"',
    'api_key = os.environ["API_KEY_NUMBER_1"]',
    'token = "changeme-changeme-123"',
    'password = "password1234567890"',
    'password = "hunter2"',  # too short to tell
    'secret = "aaaaaaaaaaaaaaaaaaaaaaa1"',
    'secret_name = "projects/main/keys"',
    'token_type = "urn:ietf:params:oauth:grant-type:jwt-bearer"',
    'tokenizer = "bert-base-uncased-model"',
    "token = tokenize_next_of_32_bytes(stream)",
    'key = "' + drawn(32) + '"',  # of a dictionary, for all that is known
    'keyboard = "' + drawn(32) + '"',
    f'commit = "{drawn(40, HEX)}"',
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    'aws_secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"',
    "MALAYSIA" + drawn(16, string.ascii_uppercase),  # a name, as no boundary is before ASIA
    "ghp_" + "x" * 36,
    "ghp_short",
    "sk-learn-contrib-and-other-names-of-packages",
    "task-" + drawn(48),
    "<div class='sk-cube-grid sk-folding-cube'>",
    "-----BEGIN PUBLIC KEY-----\n" + drawn(64) + "\n-----END PUBLIC KEY-----",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    'if line.startswith("-----BEGIN PRIVATE KEY-----"):\n    read(line)\n',
    "eyJhbGciOiJIUzI1NiJ9",
    "http://user:password@host:8080/",
    "http://joe:s3cr3tpw@www.example.com/",
    "postgres://postgres:postgres@db:5432",
    "postgres://{user}:{password}@{host}/",
    "mysql://root:$DB_PASS@db/",
    "see http://a.org:8080/path@2x.png",
    "mailto:somebody@somewhere.org",
]


@pytest.mark.parametrize(
    ("kind", "secret"), [(kind, each) for kind, all_ in SECRETS.items() for each in all_]
)
@pytest.mark.parametrize(
    "around", [("", ""), ('x = "', '"\n'), ("é İ see ", " or not"), ("key=", "\n"), ("(", ")")]
)
def test_secrets_of_a_published_form_are_found_whole(kind: str, secret: str, around: tuple[str, str]) -> None:
    text = secret.join(around)
    found = find(text)
    assert found[0].kind == kind
    # The end of a private key may be missing, and what comes then is taken to be of it.
    assert text[found[0].start : found[0].end].strip() == secret or "-----END" not in secret
    assert redact(text).startswith(f"{around[0]}<redacted: {kind}>")
    assert secret[-30:-4] not in redact(text)


@pytest.mark.parametrize(("before", "value", "after"), ASSIGNED)
def test_a_random_value_of_a_telling_name_is_a_secret(before: str, value: str, after: str) -> None:
    text = f"{before}{value}{after}"
    (secret,) = find(text)
    assert text[secret.start : secret.end] == value
    assert redact(text) == f"{before}<redacted: {secret.kind}>{after}"
    kinds = {AWS_SECRET: "AWS secret access key"} | ({value: "password in URL"} if "://" in before else {})
    assert secret.kind == kinds.get(value, "assigned secret")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_stands_for_a_secret_is_none(text: str) -> None:
    assert find(text) == []
    assert redact(text) == text


def test_secrets_that_overlap_are_one() -> None:
    token = "gh" + "p_" + drawn(36)
    text = f'secret = "{token}", url = "https://bot:{token}@git.corp.net"'
    assert redact(text).count("<redacted: ") == 2
    assert token[4:] not in redact(text)


def test_random_values_are_rarely_missed() -> None:
    values = [drawn(32, seed=seed) for seed in range(500)] + [drawn(32, HEX, seed) for seed in range(500)]
    assert sum(not find(f'api_key = "{value}"') for value in values) <= 10
    tokens = ["gh" + "p_" + drawn(36, seed=seed) for seed in range(500)]
    assert sum(not find(token) for token in tokens) <= 5


PIECES = st.sampled_from(
    [secret for secrets in SECRETS.values() for secret in secrets]
    + ["".join(parts) for parts in ASSIGNED]
    + HARMLESS
    + ["-----", "BEGIN ", "PRIVATE KEY", "token", "secret", "=", '"', ":", "://", "@", "\n", " ", "sk-", "<redacted: "]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=5), max_size=8).map("".join))
@example("İ" * 3 + 'token = "' + drawn(32) + '"')
@example("\ud800")
def test_redacted_text_holds_no_secret_and_stays_as_it_is(text: str) -> None:
    secrets, safe = find(text), redact(text)
    assert find(safe) == [] and redact(safe) == safe
    assert [each.start for each in secrets] == sorted(each.start for each in secrets)
    assert all(first.end <= second.start for first, second in itertools.pairwise(secrets))
    assert all(0 <= each.start < each.end <= len(text) for each in secrets)
    if not secrets:
        assert safe == text


@given(st.lists(PIECES | st.text(max_size=5), max_size=8), st.integers(1, 40))
def test_a_text_in_parts_is_redacted_as_a_whole(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    for parts in (pieces, [text[low : low + size] for low in range(0, len(text), size)]):
        safe = redact_parts(parts)
        assert len(safe) == len(parts) and "".join(safe) == redact(text)
        if not find(text):
            assert safe == parts


def test_a_secret_of_two_parts_stands_in_the_first() -> None:
    key = SECRETS["AWS access key id"][0]
    assert redact_parts([f"id {key[:9]}", f"{key[9:]} and", " more"]) == [
        "id <redacted: AWS access key id>",
        " and",
        " more",
    ]
    assert redact_parts(["id ", key, " more"]) == ["id ", "<redacted: AWS access key id>", " more"]


@pytest.mark.parametrize(
    "piece",
    [
        "token=",
        "secret: '",
        "passw",
        "eyJ",
        "eyJaaaaaaaa.",
        "-sk-",
        "://",
        "://a:b",
        "a:b@",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_hostile_megabyte_is_searched_to_its_end(piece: str) -> None:
    token = "gh" + "p_" + drawn(36)
    text = piece * (1_000_000 // len(piece)) + "\n " + token
    assert token[8:] not in redact(text)


def test_the_standard_library_holds_no_secrets() -> None:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [*root.glob("*.py"), *root.glob("email/*.py"), *root.glob("http/*.py"), *root.glob("urllib/*.py")]
    flagged = [file.name for file in files if find(file.read_text("utf-8"))]
    assert len(files) > 100 and len(flagged) <= 1, flagged
