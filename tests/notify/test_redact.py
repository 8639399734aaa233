"""Secrets and control characters of texts."""

import pytest

from etude.notify.redact import redact


def test_values_of_telling_variables_are_taken_out_and_those_of_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {
        "MY_API_TOKEN": "kugelblitz-77",
        "ETUDE_LINE_TO": "Uabc123456",
        "DB_PASSWORD": "kugelblitz-77-lang",
    }
    kept = {
        "HF_TOKEN_PATH": "/home/me/token",
        "SHELL": "zsh-is-no-secret",
        "KEY_PORT": "12345678",
        "A_KEY": "abc",
    }
    for name, value in {**values, **kept}.items():
        monkeypatch.setenv(name, value)
    text = redact(" ".join([*values.values(), *kept.values()]))
    for name, value in values.items():
        assert value not in text and f"<redacted: {name}>" in text
    assert all(value in text for value in kept.values())


def test_credentials_of_addresses_known_tokens_and_control_characters_go() -> None:
    token = "hf_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cX9kLm2"
    text = redact(f"see https://me:pa@ss@host/x and {token}\x1b[31m\u202e\nnext")
    assert "me:pa" not in text and "host/x" in text and token not in text
    assert "\x1b" not in text and "\u202e" not in text and text.endswith("\nnext")
