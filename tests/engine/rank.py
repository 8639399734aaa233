"""One rank of a run under torchrun: writes its losses and a sum of its weights."""

import hashlib
import json
import sys
from pathlib import Path

import torch

from etude.data.loader import Loader
from etude.data.prepared import prepare
from etude.engine.loop import TrainState, train
from etude.engine.optim import Optimizer
from etude.engine.precision import choose_precision
from etude.engine.world import join_world
from etude.models.catalogue import decoder_config
from etude.models.decoder import Decoder
from etude.objectives.causal import Causal
from etude.recipe.course import Course
from etude.recipe.load import recipe_from

folder = Path(sys.argv[1])
recipe = recipe_from(json.loads((folder / "recipe.json").read_text()))
corpus = prepare(recipe)
device = torch.device("cpu")
world = join_world(device)
model = Decoder(
    decoder_config(recipe.model, vocab_size=corpus.tokenizer.vocab_size, seq_len=recipe.train.seq_len)
)
model.init_weights(recipe.seed)
state = TrainState(
    model, Optimizer(model, recipe.optim), choose_precision("fp32", device, targets_per_step=1),
    Course(recipe, 20),
)  # fmt: skip
loader = Loader(
    corpus.train, global_batch_size=8, micro_batch_size=4, seed=recipe.seed, attend_across_documents=True,
    rank=world.rank, ranks=world.size,
)  # fmt: skip
steps = train(state, loader.iterate(0, 20), Causal(), world)
losses = [float(step.measured[0] / step.measured[1]) for step in steps]
weights = hashlib.sha256(
    b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
).hexdigest()
(folder / f"rank{world.rank}.json").write_text(json.dumps({"losses": losses, "weights": weights}))
world.leave()
