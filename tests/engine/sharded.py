"""One rank of runs, one after another: a folder with recipes (JSON), and steps to stop at by name."""

import json
import os
import shutil
import sys
from pathlib import Path

from etude.recipe.load import change, recipe_from
from etude.run import run_recipe
from etude.start import Options

folder, ranks = Path(sys.argv[1]), int(os.environ["WORLD_SIZE"])
for path in sorted(folder.glob("*.json")):
    given = json.loads(path.read_text())
    meeting = folder / f"{path.stem}-{ranks}"
    meeting.mkdir(exist_ok=True)
    os.environ["ETUDE_RANKS_FOLDER"] = str(meeting)
    changes = {"train.devices": ranks, "train.parallel": given["parallel"]}
    options = Options(runs=Path(given["runs"]), stop_at=given.get("stop_at"))
    training = run_recipe(recipe_from(change(given["recipe"], changes)), options)
    session = training._session
    held = {
        "weights": sum(each.nbytes for each in session.state.parameters.values()),
        "optimizer": sum(
            each.nbytes for _, state in session.state.optimizer.states() for each in state.values()
        ),
    }
    rank = os.environ["RANK"]
    (meeting / f"held-{rank}").write_text(json.dumps(held))
    if rank == "0" and "copy" in given:
        shutil.copytree(given["runs"], given["copy"])
