"""Runs whose recipe was changed by hand, and weights that are no finite numbers."""

from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import Case


def run_with(change: Callable[[Path], object], *words: str) -> Callable[[Path], list[str]]:
    """A stopped run whose resolved.toml is changed, given to a command."""

    def make(folder: Path) -> list[str]:
        from etude.recipe.load import recipe_from
        from etude.records.store import create_run
        from tests.bases import write_corpus
        from tests.recipes import tiny

        writer = create_run(folder / "runs", recipe_from(tiny(write_corpus(folder / "corpus.jsonl", 20))))
        writer.close("stopped")
        change(writer.run.path / "resolved.toml")
        return [word.replace("RUN", str(Path("runs") / writer.run.name)) for word in words]

    return make


def replaced(old: str, new: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text().replace(old, new))


def broken_base(value: float, *words: str) -> Callable[[Path], list[str]]:
    """A base model with one number that is not finite, given to a command."""

    def make(folder: Path) -> list[str]:
        from safetensors.torch import load_file, save_file

        from tests.bases import write_instructions, write_qwen2

        file = write_qwen2(folder / "base") / "model.safetensors"
        tensors = load_file(file)
        tensors[max(tensors)].view(-1)[-1] = value
        save_file(tensors, file, metadata={"format": "pt"})
        write_instructions(folder / "rows.jsonl", 20)
        (folder / "recipe.toml").write_text(
            'name = "a"\n[model]\nfrom = "./base"\n[adapter]\nrank = 2\n[[data.train]]\npath = "rows.jsonl"\n'
            "[train]\nsteps = 1\nseq_len = 64\nglobal_batch_size = 2\n[optim]\nlearning_rate = 1e-3\n"
        )
        return list(words)

    return make


CHANGED, BROKEN = "resolved.toml was changed after run", "holds NaN or infinity"
RATE = replaced("learning_rate = 0.003", "learning_rate = 0.3")
CASES = [
    Case(name="a changed rate, resumed", make=run_with(RATE, "resume", "RUN"), says=CHANGED),
    Case(name="a changed rate, reported", make=run_with(RATE, "report", "RUN"), says=CHANGED),
    Case(
        name="a changed rate, exported",
        make=run_with(RATE, "export", "RUN", "out", "--to", "hf"),
        says=CHANGED,
    ),
    Case(
        name="a changed seed",
        make=run_with(replaced("seed = 17", "seed = 18"), "resume", "RUN"),
        says=CHANGED,
    ),
    Case(
        name="a key more", make=run_with(replaced("[train]", "[train]\nx = 1"), "resume", "RUN"), says=CHANGED
    ),
    Case(name="no TOML", make=run_with(lambda path: path.write_text("= ["), "resume", "RUN"), says=CHANGED),
    Case(
        name="an empty resolved.toml",
        make=run_with(lambda path: path.write_text(""), "resume", "RUN"),
        says=CHANGED,
    ),
    Case(
        name="no resolved.toml",
        make=run_with(lambda path: path.unlink(), "resume", "RUN"),
        says="does not exist",
    ),
    Case(
        name="a base with NaN, trained",
        make=broken_base(float("nan"), "train", "recipe.toml"),
        says=BROKEN,
        quick=False,
    ),
    Case(
        name="a base with infinity, trained",
        make=broken_base(float("inf"), "train", "recipe.toml"),
        says=BROKEN,
        quick=False,
    ),
    Case(
        name="a base with NaN, asked",
        make=broken_base(float("nan"), "generate", "base", "--prompt", "a"),
        says=BROKEN,
        quick=False,
    ),
]
