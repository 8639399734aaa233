"""Secrets from the environment and from notebooks."""

import os
import sys
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.notify.variables import read_variables
from etude.recipe.notify import Notify


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ETUDE_LINE_TOKEN", "ETUDE_LINE_TO"):
        monkeypatch.setenv(name, "set, so that it is taken back")
        monkeypatch.delenv(name)


def test_secrets_of_kaggle_and_colab_are_read_where_their_modules_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kaggle_secrets.py").write_text(
        "class UserSecretsClient:\n"
        "    def get_secret(self, name):\n"
        "        return {'ETUDE_LINE_TOKEN': 'from-kaggle', 'ETUDE_LINE_TO': 'U1'}[name]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read_variables(Notify(channel="line")) == {"TOKEN": "from-kaggle", "TO": "U1"}
    assert os.environ["ETUDE_LINE_TOKEN"] == "from-kaggle"  # for the processes that this one starts
    monkeypatch.setenv("ETUDE_LINE_TOKEN", "from-environment")
    assert read_variables(Notify(channel="line"))["TOKEN"] == "from-environment"
    sys.modules.pop("kaggle_secrets")


def test_a_notebook_that_does_not_grant_a_secret_leaves_it_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kaggle_secrets.py").write_text("raise SystemError('no internet')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="needs the variable ETUDE_LINE_TOKEN"):
        read_variables(Notify(channel="line"))
