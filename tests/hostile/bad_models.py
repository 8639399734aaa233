"""Models, adapters and their files that cannot be used."""

import functools
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.bases import write_qwen2
from tests.hostile.case import Case

GENERATE = ["generate", "model", "--prompt", "a", "--max-tokens", "2"]
ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@functools.cache
def _qwen2() -> Path:
    return write_qwen2(Path(tempfile.mkdtemp()) / "model")


def model(change: Callable[[Path], object], words: list[str] | None = None) -> Callable[[Path], list[str]]:
    """A Qwen2 in `model`, changed, and the command that meets it."""

    def make(folder: Path) -> list[str]:
        shutil.copytree(_qwen2(), folder / "model")
        change(folder / "model")
        return words or GENERATE

    return make


def adapter(
    change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object],
) -> Callable[[Path], list[str]]:
    """An adapter on q_proj beside its base, changed, given to `etude generate`."""

    def make(folder: Path) -> list[str]:
        shutil.copytree(_qwen2(), folder / "model")
        config: dict[str, Any] = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "./model", "r": 2,
            "lora_alpha": 4, "target_modules": ["q_proj"],
        }  # fmt: skip
        parts = {"lora_A.weight": torch.ones(2, 32), "lora_B.weight": torch.ones(32, 2)}
        tensors = {
            f"base_model.model.model.layers.{layer}.self_attn.q_proj.{part}": tensor.clone()
            for layer in range(2)
            for part, tensor in parts.items()
        }
        change(config, tensors)
        (folder / "adapter").mkdir()
        (folder / "adapter" / CONFIG).write_text(json.dumps(config))
        save_file(tensors, folder / "adapter" / ADAPTER)
        return ["generate", "./adapter", "--prompt", "a"]

    return make


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def says_of(name: str, value: Any) -> Callable[[Path], list[str]]:
    """An adapter whose config says this."""
    return adapter(lambda config, tensors: config.update({name: value}))


def holds(name: str, tensor: torch.Tensor) -> Callable[[Path], list[str]]:
    """An adapter whose file holds this."""
    return adapter(lambda config, tensors: tensors.update({name: tensor}))


CONFIGS: list[tuple[str, Any, str]] = [
    ("r", 10**9, "r from 1 to 4096"), ("r", 4096, r"is \[2, 32\], but r = 4096"), ("r", True, "r from 1 to 4096"),
    ("lora_alpha", 10**400, "lora_alpha above 0"),
    ("target_modules", ["..", "../q_proj"], "does not target"), ("target_modules", "(" * 5000, "no regular expression"),
    ("target_modules", "\ud800.*", "does not target"), ("modules_to_save", ["../x"], "is not supported"),
    ("rank_pattern", {"(": 3}, "no regular expression"), ("rank_pattern", {"q_proj)|(x": 3}, "but r = 3"),
    ("rank_pattern", {"(([a-z_.0-9])+)+Z": 3}, "takes more than 3 s"),
    ("base_model_name_or_path", "../../../etc", "does not exist"), ("base_model_name_or_path", "a\0b", "neither a"),
    ("base_model_name_or_path", "http://127.0.0.1/x", "neither a folder"), ("zz", "\x1b" * 999, "is unknown"),
]  # fmt: skip
FORGED: list[tuple[str, torch.Tensor, str]] = [
    (FIRST, torch.full((2, 32), torch.nan), "holds NaN or infinity"), (FIRST, torch.ones(()), r"is \[\], but r = 2"),
    (FIRST, torch.ones(0, 32), r"is \[0, 32\], but r = 2"), (FIRST, torch.ones(32, 2), r"is \[32, 2\], but r = 2"),
    (FIRST, torch.ones(2, 32, dtype=torch.complex64), "holds complex64 numbers"),
    ("base_model.model.../../x.lora_A.weight", torch.ones(2, 32), "adapts ../../x, which its base does not have"),
    ("base_model.model." + "x." * 99_999 + "lora_A.weight", torch.ones(2, 32), "which its base does not have"),
    ("base_model.model.\x1b[31m\u202e.lora_A.weight", torch.ones(2, 32), r"adapts .x1b.31m.u202e, which"),
]  # fmt: skip
ADAPTERS = [
    *(
        Case(name=f"an adapter with {name} = {repr(value)[:40]!r}", make=says_of(name, value), says=says)
        for name, value, says in CONFIGS
    ),
    *(
        Case(name=f"an adapter that holds {number}", make=holds(name, tensor), says=says)
        for number, (name, tensor, says) in enumerate(FORGED)
    ),
    Case(
        name="an adapter without a layer that it targets",
        make=adapter(
            lambda config, tensors: [tensors.pop(name) for name in list(tensors) if "layers.1." in name]
        ),
        says=r"lacks the tensors of model\.layers\.1\.self_attn\.q_proj",
    ),
    Case(
        name="an adapter with an unknown key",
        make=adapter(lambda config, tensors: config.update(future_scaling=3.0)),
        says="future_scaling = 3.0, which is unknown",
    ),
    Case(
        name="an adapter whose targets are a pattern that backtracks",
        make=adapter(lambda config, tensors: config.update(target_modules=r"(.*)*(\w+)*(.*)*(\w+\.)*!")),
        says="takes more than 3 s; list the names",
        quick=False,
    ),
    Case(
        name="an adapter with a long name of a base",
        make=adapter(lambda config, tensors: config.update(base_model_name_or_path="x" * 5000)),
        says="cannot be looked up",
    ),
    Case(
        name="an adapter that is its own base",
        make=adapter(lambda config, tensors: config.update(base_model_name_or_path="./adapter")),
        says=r"has no config\.json",
    ),
    Case(
        name="an adapter of whole numbers",
        make=adapter(
            lambda config, tensors: tensors.update({name: t.to(torch.int8) for name, t in tensors.items()})
        ),
        says="holds int8 numbers",
    ),
    Case(
        name="an adapter of another shape",
        make=adapter(lambda config, tensors: config.update(r=4)),
        says="but r = 4 and the base ask for",
    ),
    Case(
        name="an adapter with alpha NaN",
        make=adapter(lambda config, tensors: config.update(lora_alpha=float("nan"))),
        says="does not describe a LoRA adapter",
    ),
]


def config(**changes: Any) -> Callable[[Path], list[str]]:
    """A Qwen2 whose config.json has other values."""

    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | changes))

    return model(change)


CONFIGS = [
    *(
        Case(
            name=f"a config.json with {name} = {value!r}",
            make=config(**{name: value}),
            says=rf"model/config\.json: .*{says}",
        )
        for name, value, says in (
            ("tie_word_embeddings", "yes", "expected true or false"),
            ("rms_norm_eps", "small", "rms_norm_eps is 'small'; expected a number"),
            ("use_sliding_window", 1, "expected true or false"),
            ("layer_types", ["full_attention"], "layer_types is"),
            ("num_key_value_heads", 3, "n_kv_head is 3, which does not divide n_head"),
        )
    ),
    Case(
        name="rope_scaling and rope_parameters that differ",
        make=config(
            rope_scaling={"rope_type": "yarn", "factor": 2.0}, rope_parameters={"rope_type": "default"}
        ),
        says=r"rope_parameters\.factor = None and rope_scaling\.factor = 2\.0; keep one",
    ),
    Case(
        name="hidden_size and n_embd that differ",
        make=config(n_embd=64),
        says="hidden_size = 32 and n_embd = 64",
    ),
    Case(
        name="a config.json with a key twice",
        make=model(
            lambda folder: (folder / "config.json").write_text(
                '{"model_type": "qwen2", "model_type": "llama"}'
            )
        ),
        says="the key 'model_type' twice",
    ),
]


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], list[str]]:
    """A Qwen2 whose model.safetensors has other bytes."""

    def make(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return model(make)


def with_header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], list[str]]:
    """A Qwen2 whose model.safetensors has another header before the same numbers."""

    def rewrite(content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return weights(rewrite)


NORM = "model.norm.weight"


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    return model(make)


def shards(weight_map: dict[str, str]) -> Callable[[Path], list[str]]:
    """A Qwen2 in two files of which an index says this."""

    def make(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        save_file(held, folder / "a.safetensors")
        save_file({NORM: held[NORM]}, folder / "b.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return model(make)


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], list[str]]:
    """A Qwen2 with something else under the name of one of its files."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return model(change)


DAMAGED = "is not a safetensors file, or is damaged"
WEIGHTS = [
    Case(name="weights cut by a byte", make=weights(lambda content: content[:-1]), says=DAMAGED),
    Case(name="weights with a byte too many", make=weights(lambda content: content + b"x"), says=DAMAGED),
    Case(name="empty weights", make=weights(lambda content: b""), says=DAMAGED),
    Case(
        name="a header longer than the file",
        make=weights(lambda content: struct.pack("<Q", len(content)) + content[8:]),
        says=DAMAGED,
    ),
    Case(
        name="a header of 200 MB",
        make=weights(lambda content: struct.pack("<Q", 200 << 20) + content[8:]),
        says="its header claims 209,715,200 bytes",
    ),
    Case(
        name="offsets that overlap",
        make=with_header(lambda header: header[NORM].update(data_offsets=[0, 128])),
        says=DAMAGED,
    ),
    Case(
        name="a dtype that is none",
        make=with_header(lambda header: header[NORM].update(dtype="F99")),
        says=DAMAGED,
    ),
    Case(
        name="whole numbers",
        make=with_header(lambda header: header[NORM].update(dtype="I32")),
        says="holds I32 numbers",
    ),
    Case(name="a tensor that is missing", make=tensors(lambda held: held.pop(NORM)), says=f"lacks {NORM}"),
    Case(
        name="a tensor too many",
        make=tensors(lambda held: held.update({"model.extra.weight": torch.ones(2)})),
        says=r"has model\.extra\.weight, unlike its config\.json",
    ),
    Case(
        name="a tensor of another shape",
        make=tensors(lambda held: held.update({NORM: torch.ones(31)})),
        says=r"is \[31\], but config\.json says \[32\]",
    ),
    Case(
        name="a tensor of no rows",
        make=tensors(lambda held: held.update({NORM: torch.ones(0)})),
        says=r"is \[0\], but",
    ),
    Case(
        name="weights that are a pickle",
        make=weights(lambda content: b"\x80\x04" + content),
        says="it is a pickle, which could run code",
    ),
    Case(
        name="weights that are a pipe",
        make=instead("model.safetensors", os.mkfifo),
        says="has no model.safetensors",
    ),
    Case(
        name="weights that are a folder",
        make=instead("model.safetensors", os.mkdir),
        says="has no model.safetensors",
    ),
    Case(name="a config.json that is a pipe", make=instead("config.json", os.mkfifo), says="."),
    Case(
        name="a config.json that is a device",
        make=instead("config.json", lambda path: path.symlink_to("/dev/zero")),
        says=".",
    ),
    Case(
        name="a config.json that is a link to itself",
        make=instead("config.json", lambda path: path.symlink_to("config.json")),
        says=".",
    ),
    Case(
        name="a config.json in UTF-16",
        make=instead("config.json", lambda path: path.write_text("{}", "utf-16")),
        says="is not UTF-8 text",
    ),
    Case(
        name="a config.json nested a hundred thousand deep",
        make=instead("config.json", lambda path: path.write_text("[" * 100_000 + "]" * 100_000)),
        says="nested too deeply",
    ),
    Case(
        name="a config.json of 1 GB",
        make=instead("config.json", lambda path: path.touch() or os.truncate(path, 1 << 30)),
        says="larger than",
        quick=False,
    ),
    Case(
        name="shards outside the folder",
        make=shards({NORM: "../b.safetensors"}),
        says="which is no safetensors file of the folder",
    ),
    Case(name="a shard that is missing", make=shards({NORM: "c.safetensors"}), says=r"lacks c\.safetensors"),
    Case(
        name="a tensor in two shards",
        make=shards({NORM: "b.safetensors", "lm_head.weight": "a.safetensors"}),
        says=f"has {NORM} in two of its files",
    ),
    Case(name="an index without a map", make=shards([NORM]), says="has no weight_map"),  # type: ignore[arg-type]
    Case(name="more blocks than tensors", make=config(num_hidden_layers=2**40), says="but the files hold"),
    Case(
        name="a width that no model has",
        make=config(intermediate_size=2**40),
        says="expected 1 to 16,777,216",
    ),
    *(
        Case(name=f"{name} that fills the memory", make=config(**{name: value}), says=says)
        for name, value, says in (
            ("num_labels", 10**8, "num_labels is 100000000; expected .* to 100,000"),
            ("_num_labels", 10**8, "_num_labels is 100000000"),
            ("text_config", {"num_labels": 10**9}, "num_labels is 1000000000"),
            ("vision_config", {"deep": [{"num_labels": 10**9}]}, "num_labels is 1000000000"),
            (
                "attention_types",
                [[["global", "local"], 10**9]],
                "attention_types is 1000000000; expected .* to 4,096",
            ),
            (
                "layers_block_type",
                {"mamba": 10**7, "n_layers": 10**7},
                "n_layers is 10000000; expected .* to 4,096",
            ),
            ("num_experts", 2**24, "num_experts is 16777216"),
            ("num_nextn_predict_layers", 10**7, "num_nextn_predict_layers is 10000000"),
            ("rope_scaling", {"rope_type": "dynamic", "factor": 2**60}, "factor"),
            ("bos_token_id", 2**60, "bos_token_id is"),
            ("eos_token_id", [1, 2**60], "eos_token_id is"),
            ("layer_types", ["full_attention"] * 200_000, "layer_types has 200,000 entries"),
            ("id2label", {str(n): str(n) for n in range(200_000)}, "id2label has 200,000 entries"),
        )
    ),
    Case(
        name="a value that is far too long",
        make=config(hidden_act="x" * 5000),
        says="hidden_act|cannot build",
    ),
    Case(name="code of its own", make=config(auto_map={"AutoModel": "evil.Model"}), says="auto_map"),
    Case(
        name="init with damaged weights",
        make=model(
            lambda folder: (
                (folder / "model.safetensors").write_bytes(b"x"),
                (folder.parent / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n'),
            ),
            ["init", "--data", "rows.jsonl", "--model", "./model", "--out", "recipe.toml"],
        ),
        says=DAMAGED,
    ),
]


def recipe(**sizes: Any) -> Callable[[Path], list[str]]:
    """A recipe for a new model of these sizes, given to `etude check`."""

    def make(folder: Path) -> list[str]:
        (folder / "rows.jsonl").write_text(
            "".join(f'{{"text": "def f{n}(): return {n}"}}\n' for n in range(50))
        )
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in sizes.items())
        objective = "masked" if sizes["kind"] == "encoder" else "causal"
        (folder / "recipe.toml").write_text(
            f'name = "a"\n[model]\n{lines}\n[tokenizer]\ntrain_vocab_size = 300\n[[data.train]]\npath = '
            f'"rows.jsonl"\n[train]\nobjective = "{objective}"\nsteps = 20\nseq_len = 16\nglobal_batch_size '
            '= 4\ndevice = "cpu"\n'
        )
        return ["train", "recipe.toml"]

    return make


NEW = [
    Case(
        name=f"{key} of a new {kind} beyond any machine",
        make=recipe(kind=kind, **{key: 2**40}),
        says=says,
    )
    for kind in ("decoder", "encoder")
    for key, says in {"n_layer": "it must be at most 4,096", "n_ffn": "this machine has"}.items()
]
CASES = [*ADAPTERS, *CONFIGS, *WEIGHTS, *NEW]


def overflowing(folder: Path) -> None:
    """Weights that are all finite, and logits that are not."""
    held = load_file(folder / "model.safetensors")
    name = NORM if NORM in held else "decoder.final_layer_norm.weight"
    held[name] = torch.full_like(held[name], 3e38)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


def t5(folder: Path) -> list[str]:
    from tests.bases import write_t5

    overflowing(write_t5(folder / "model"))
    return GENERATE


LOGITS = "logits of the next token are NaN or infinite"
CASES += [
    Case(name="weights whose logits overflow, drawn", make=model(overflowing), says=LOGITS),
    Case(
        name="weights whose logits overflow, greedy",
        make=lambda folder: [*model(overflowing)(folder), "--temperature", "0"],
        says=LOGITS,
    ),
    Case(name="weights of a T5 whose logits overflow", make=t5, says=LOGITS),
    Case(
        name="an epsilon that is NaN",
        make=config(rms_norm_eps=float("nan")),
        says="rms_norm_eps is nan; expected a",
    ),
    Case(
        name="a NaN anywhere", make=config(unused={"deep": [float("nan")]}), says="is nan; expected a number"
    ),
    Case(
        name="a dropout of all",
        make=config(attention_dropout=1.0),
        says="attention_dropout is 1.0; expected a number from 0",
    ),
]
