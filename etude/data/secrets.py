"""Keys, tokens and passwords in texts: where they are, and the text without them.

A secret is known by the prefix that its issuer publishes, by the form around it, or by a telling name that is
given a random value. What only stands for one is passed over: xxxx, your-key, example, <key>, ${KEY}.
"""

import bisect
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Secret:
    """A kind of secret at text[start:end]."""

    kind: str
    start: int
    end: int


def find(text: str) -> list[Secret]:
    """The secrets of a text in order; those that overlap are one. The time is linear in the text."""
    folded = text.replace("\u0130", "I").lower()  # \u0130 alone would become two characters
    secrets = []
    for form in _FORMS:
        where = folded if form.is_assigned else text
        if form.needle in where:
            for match in form.pattern.finditer(where):
                if _is_random(text[slice(*match.span("value"))], form):
                    secrets.append(Secret(form.kind, *match.span("secret")))
    secrets.sort(key=lambda secret: (secret.start, -secret.end))
    merged: list[Secret] = []
    for secret in secrets:
        if merged and secret.start < merged[-1].end:
            merged[-1] = replace(merged[-1], end=max(merged[-1].end, secret.end))
        else:
            merged.append(secret)
    return merged


def redact(text: str) -> str:
    """Put `<redacted: kind>` in place of each secret of a text; nothing can be found in it any more."""
    return redact_parts([text])[0]


def redact_parts(parts: Sequence[str]) -> list[str]:
    """Redact a text in parts; a secret that several of them share stands in the first of those."""
    text, borders = "".join(parts), [0, *itertools.accumulate(map(len, parts))]
    while found := find(text):  # again, as what stood beside a secret may now be one
        starts, ends = [secret.start for secret in found], [0, *(secret.end for secret in found)]
        names = [f"<redacted: {secret.kind}>" for secret in found]
        between = [text[end:start] for end, start in zip(ends, [*starts, len(text)])]
        growth = (len(name) + start - end for name, start, end in zip(names, starts, ends[1:]))
        grown = [0, *itertools.accumulate(growth)]
        before = [bisect.bisect_left(starts, border) for border in borders]
        borders = [max(border, ends[count]) + grown[count] for border, count in zip(borders, before)]
        text = between[0] + "".join(name + after for name, after in zip(names, between[1:]))
    return [text[low:high] for low, high in itertools.pairwise(borders)]


@dataclass(frozen=True)
class _Form:
    """A form of secrets: its expression begins with `needle`, and the group `value` must look random.

    is_assigned: a name and its value, compared in lower case. least_bits: entropy a character.
    """

    kind: str
    needle: str
    expression: str
    least_bits: float
    is_assigned: bool = False

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(self.expression, re.ASCII | re.MULTILINE)


# Kind, beginnings, what follows. Source: the issuers' documentation of their formats.
_PREFIXED = (
    ("AWS access key id", "AKIA ASIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("GitHub token", "gh", r"[pousr]_[A-Za-z0-9]{36,255}"),
    ("GitHub token", "github_pat_", r"\w{60,255}"),
    ("GitLab token", "gl", r"(?:pat|dt|rt|ptt|cbt|soat|agent)-[\w.-]{20,255}"),
    ("Slack token", "xox", r"[abeoprs]-[A-Za-z0-9-]{20,255}"),
    ("Slack token", "xapp-", r"[A-Za-z0-9-]{20,255}"),
    ("Slack webhook", "hooks.slack.com/services/", r"[A-Za-z0-9/]{30,90}"),
    ("Stripe key", "sk_live_ rk_live_ sk_test_ rk_test_ whsec_", r"[A-Za-z0-9]{20,255}"),
    ("Google key", "AIza", r"[\w-]{35}(?![\w-])"),
    ("Google client secret", "GOCSPX-", r"[\w-]{28}(?![\w-])"),
    ("Google token", "ya29.", r"[\w-]{30,1000}"),
    ("Anthropic key", "sk-ant-", r"[\w-]{30,255}"),
    ("OpenAI key", "sk-", r"(?:(?:proj|svcacct|admin)-[\w-]{30,255}|[A-Za-z0-9]{32,255})"),
    ("Hugging Face token", "hf_", r"[A-Za-z0-9]{30,64}(?!\w)"),
    ("npm token", "npm_", r"[A-Za-z0-9]{36}(?!\w)"),
    ("PyPI token", "pypi-AgE", r"[\w-]{50,1000}"),
)
_PRIVATE_KEY = (
    r"(?P<secret>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----"
    r"(?P<value>[^-]*+(?:-(?!----)[^-]*+)*+-----END|[A-Za-z0-9+/=\s\\]{64,})(?:[A-Z0-9 ]{0,60}-----)?)"
)
_WEB_TOKEN = r"(?P<secret>eyJ(?<![\w.-]eyJ)(?P<value>[\w-]{8,4000}+\.eyJ[\w-]{8,8000}+\.[\w-]{16,2000}))"
_PASSWORD_IN_URL = (
    r"://(?P<user>[^\s:/@\"'`<>]{1,64}):(?!(?P=user)@)(?P<secret>(?P<value>[^\s/@\"'`<>{}$*\\]{5,128}))"
    r"@(?!(?:host|hostname|server)\b|[\w.-]{0,60}\bexample\b)[\w\[]"
)
_AWS_SECRET = "secret(?:(?<=aws_secret)|_?access)"
# Words for "key" alone would take in sort keys, keyboards and dictionaries.
_KEYS = ("api", "access", "auth", "private", "encryption", "account", "signing")
_NAMES = (
    "key(?:" + "|".join(rf"(?<={kind}key)|(?<={kind}[_-]key)" for kind in _KEYS) + ")",
    "secret", "token", "passw", "pwd", "credential",
)  # fmt: skip
# The rest of a name, what stands between, and a value: in quotes, or up to the end of the line.
_GIVEN = (
    r"[\w-]{0,32}+[\"'`]?\]?\s{0,4}(?::\s?[a-z][\w.|\[\] ]{0,24}=|:=|=>|={1,3}|:)\s{0,4}"
    r"(?:[bruf]{0,2}(?P<quote>[\"'`]))?"
    r"(?P<secret>(?P<value>(?(quote)[\w+/=.~!@#$%^&*-]{16,512}|[a-z0-9+/]{20,512}={0,2})))"
    r"(?(quote)(?P=quote)|[ \t]{0,8}$)"
)
_PLACEHOLDER = re.compile(
    r"x{4}|(.)\1{5}|\*{3}|\.{3}|[<>{}]|\$[({]|%[(s]|123456|abcdef|your|example|sample|placeholder|change|dummy"
    r"|fake|test|secret|pass|pwd|token|redacted|insert|replace",
    re.IGNORECASE,
)
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{32,}")


_FORMS = (
    _Form("private key", "-----BEGIN ", _PRIVATE_KEY, 4.0),
    # A pattern that begins with plain characters is found many times as fast, so what must not stand before
    # them is looked for after them.
    *(_Form(kind, prefix, rf"(?P<secret>{name}(?<![A-Za-z0-9]{name})(?P<value>{rest}))", 3.0)
      for kind, prefixes, rest in _PREFIXED
      for prefix, name in ((part, re.escape(part)) for part in prefixes.split())),
    _Form("JSON web token", "eyJ", _WEB_TOKEN, 3.0),
    _Form("password in URL", "://", _PASSWORD_IN_URL, 2.0),
    _Form("AWS secret access key", "secret", _AWS_SECRET + _GIVEN, 4.0, is_assigned=True),
    *(_Form("assigned secret", name.split("(")[0], name + _GIVEN, 3.5, is_assigned=True) for name in _NAMES),
)  # fmt: skip


def _is_random(value: str, form: _Form) -> bool:
    """True if a value looks drawn by chance; of several lines, the longest counts."""
    value = max(re.split(r"[\s\\\"',]+", value), key=len)
    if _PLACEHOLDER.search(value):
        return False
    if form.is_assigned and not (re.search("[A-Za-z]", value) and re.search("[0-9]", value)):
        return False
    least_bits = 3.0 if _HEXADECIMAL.fullmatch(value) else form.least_bits  # 16 digits cannot differ as 64 do
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares) > least_bits
