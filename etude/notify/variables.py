"""The secrets of channels: variables of the environment, or the secrets of a notebook."""

import importlib
import os
from importlib.util import find_spec

from etude.errors import InputError
from etude.recipe.notify import Notify

_PAGE = "docs/notifications.md"
_LONGEST = 4096


def read_variables(channel: Notify) -> dict[str, str]:
    """The secrets of a channel by their part of the name: TOKEN, TO, URL, PROGRAM or URLS.

    A secret of the notebook becomes a variable of this process, for those that it starts.

    Raises: InputError that names the variable, never its value.
    """
    found = {}
    for part, name in channel.variables.items():
        value = (os.environ.get(name) or _of_notebook(name)).strip()
        if not value:
            places = f"set it in the environment, or as a secret of the notebook; see {_PAGE}"
            raise InputError(f"notify: channel {channel.title} needs the variable {name}, not set; {places}")
        if len(value) > _LONGEST or not value.isprintable() or (part in ("TOKEN", "TO") and " " in value):
            problem = "holds a line break, a blank or a control character, or is too long"
            raise InputError(f"notify: the variable {name} {problem}; set it again, see {_PAGE}")
        os.environ[name] = value
        found[part] = value
    return found


def _of_notebook(name: str) -> str:
    """A secret of Kaggle or Colab where their modules exist; "" without one."""
    try:
        if find_spec("kaggle_secrets"):
            return str(importlib.import_module("kaggle_secrets").UserSecretsClient().get_secret(name) or "")
        if find_spec("google") and find_spec("google.colab"):
            return str(importlib.import_module("google.colab").userdata.get(name) or "")
    except Exception:  # whatever they raise where the notebook has no such secret, or does not grant it
        return ""
    return ""
