"""Examples that the help of each command ends with."""

_EXAMPLES = {
    "": ["etude demo", "etude init --model MODEL --data rows.jsonl", "etude COMMAND --help"],
    "average": [
        "etude average my-run --last 5 --out mean",
        "etude average seed-1 seed-2 seed-3 --greedy --out soup",
    ],
    "chat": ["etude chat my-run", "etude chat my-run@last --system 'Answer in one line.'"],
    "check": ["etude check recipe.toml", "etude check recipe.toml --deep"],
    "checkpoint": ["etude checkpoint my-run"],
    "compare": ["etude compare my-run other-run", "etude compare my-run other-run --baseline first-run"],
    "data": ["etude data recipe.toml", "etude data show recipe.toml"],
    "data page": ["etude data page recipe.toml --out page.md"],
    "data show": ["etude data show recipe.toml --rows 5"],
    "demo": ["etude demo", "etude demo train.steps=2000"],
    "doctor": ["etude doctor", "etude doctor --runs /mnt/disk/runs"],
    "ensemble": [
        "etude ensemble seed-1 seed-2 seed-3",
        "etude ensemble seed-1 seed-2 --by vote --out joined",
    ],
    "estimate": [
        "etude estimate recipe.toml",
        "etude estimate recipe.toml train.epochs=5 --gpu h100 --price-per-hour 2",
        "etude estimate --from my-run --rows 1000",
        "etude estimate --history",
    ],
    "evaluate": [
        "etude evaluate my-run other-run --on rows.jsonl",
        "etude evaluate my-run",
        "etude evaluate my-run --on HumanEval.jsonl.gz --k 1,10 --samples 20",
    ],
    "export": [
        "etude export my-run exported --to peft",
        "etude export my-run@last exported --to merged",
        "etude export my-run small --to int4 --max-loss 0.03",
    ],
    "fork": [
        "etude fork my-run optim.learning_rate=1e-4",
        "etude fork my-run@best optim.weight_decay=0.3 --no-start",
    ],
    "generate": ["etude generate my-run --prompt 'def '", "etude generate my-run --prompt - < start.py"],
    "import": ["etude import Salesforce/codet5-small"],
    "guard": ["etude guard my-run", "etude guard my-run --restart 5"],
    "improve": ["etude improve my-run", "etude improve my-run --out second.toml"],
    "init": [
        "etude init --model Qwen/Qwen2.5-Coder-1.5B-Instruct --data rows.jsonl",
        "etude init --model my-folder --data rows.jsonl --validation held-out.jsonl",
        "etude init --model microsoft/codebert-base --data rows.jsonl --label label",
        "etude init --model Salesforce/codet5-small --data rows.jsonl --target target",
    ],
    "note": [
        "etude note my-run 'the rows repeat themselves' --section lessons",
        "etude note my-run 'the disk was full here'",
    ],
    "notify": ["etude notify test recipe.toml"],
    "notify test": ["etude notify test recipe.toml", "etude notify test recipe.toml --dry-run"],
    "pause": ["etude pause my-run", "etude pause my-run --release"],
    "prepare": ["etude prepare recipe.toml"],
    "rate": ["etude rate my-run", "etude rate my-run other-run --rater anna"],
    "recipes": ["etude recipes", "etude recipes show demo", "etude recipes copy demo my-recipe.toml"],
    "recipes copy": ["etude recipes copy demo", "etude recipes copy demo my-recipe.toml"],
    "recipes show": ["etude recipes show demo"],
    "report": ["etude report my-run"],
    "resume": ["etude resume my-run", "etude resume /content/drive/MyDrive/runs"],
    "sample": ["etude sample my-run 'def '"],
    "selftest": ["etude selftest", "etude selftest --json > selftest.json"],
    "runs": ["etude runs", "etude runs --json", "etude runs --disk"],
    "runs rm": ["etude runs rm my-run", "etude runs rm my-run --keep-record"],
    "schema": ["etude schema > etude.schema.json"],
    "serve": ["etude serve my-run", "etude serve my-folder --port 8181 --context 2048 --rows 16"],
    "set": [
        "etude set my-run optim.learning_rate=1e-4",
        "etude set my-run train.max_grad_norm=0.5 --reason 'the norm jumps'",
    ],
    "show": ["etude show my-run", "etude show my-run --follow"],
    "stop": ["etude stop my-run", "etude stop my-run --reason 'it overfits'"],
    "ui": ["etude ui", "etude ui runs other/runs --port 9000", "etude ui --read-only --no-open"],
    "verify": ["etude verify my-run --replay 5", "etude verify model-card.md --html checked.html"],
    "watch": ["etude watch my-run", "etude watch output/checkpoint-500", "etude watch train.log --follow"],
    "sweep": ["etude sweep plan sweep.toml", "etude sweep run sweep.toml"],
    "sweep report": [
        "etude sweep report sweep.toml",
        "etude sweep report sweep.toml --runs runs --out results",
    ],
    "sweep plan": ["etude sweep plan sweep.toml --out plan.md", "etude sweep plan sweep.toml --trials"],
    "sweep run": ["etude sweep run sweep.toml", "etude sweep run sweep.toml --folder my-sweep"],
    "sweep stage": ["etude sweep stage long.toml --branch 100=short.toml"],
    "train": [
        "etude train recipe.toml",
        "etude train recipe.toml optim.learning_rate=1e-4 --new",
        "etude train recipe.toml --detach",
        "etude train recipe.toml --replay my-run",
    ],
}


def example_text(command: str) -> str:
    """The examples of a command as the last lines of its help; of a group under its name alone."""
    lines = _EXAMPLES[command]
    return "\n".join([f"Example{'s' if len(lines) > 1 else ''}:", *lines])
