"""A run in a process that may map so many more bytes only: recipe (JSON), runs, bytes."""

import json
import sys
import threading
from pathlib import Path

import numpy as np

from etude.memory import limited_memory
from etude.recipe.load import recipe_from
from etude.run import run_recipe
from etude.start import Options

threading.stack_size(2**20)  # else each thread maps eight times as much
recipe = recipe_from(json.loads(Path(sys.argv[1]).read_text()))
np.ones((64, 64)) @ np.ones((64, 64))  # its library takes its memory once, and ends the process without it
with limited_memory(int(sys.argv[3])):
    run_recipe(recipe, Options(runs=Path(sys.argv[2])))
