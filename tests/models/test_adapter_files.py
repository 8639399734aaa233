"""Adapters in folders of PEFT: each is loaded as PEFT loads it, or refused in one line that says what is
wrong.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.errors import InputError
from etude.export import load_model
from tests.bases import write_gpt2, write_instructions, write_qwen2
from tests.conftest import SHARED, Outcome
from tests.recipes import finetuning

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], None]
PREFIX = "base_model.model."
Q1 = f"{PREFIX}model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {"qwen2": write_qwen2(folder / "qwen2"), "gpt2": write_gpt2(folder / "gpt2")}


def write_peft(folder: Path, base: Path, **settings: Any) -> Any:
    """An adapter of PEFT whose every part moves the logits; returns PEFT's model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    settings = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    } | settings
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                parameter.add_(torch.randn_like(parameter).abs() * 0.2)
    model.save_pretrained(folder)
    return model


def logits_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(tokens) if hasattr(model, "logits") else model(tokens).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen2", {"target_modules": "all-linear"}),
        ("qwen2", {"target_modules": r".*\.layers\.\d+\.self_attn\.(q|k)_proj"}),
        ("qwen2", {"layers_to_transform": 1}),
        ("qwen2", {"layers_to_transform": [0], "layers_pattern": "layers"}),
        (
            "qwen2",
            {"target_modules": ["q_proj", "down_proj", "nowhere"], "exclude_modules": ["layers.0.mlp.down_proj"]},
        ),
        ("qwen2", {"target_modules": "all-linear", "exclude_modules": r".*(up|gate)_proj"}),
        ("qwen2", {"use_rslora": True, "target_modules": ["model.layers.1.mlp.up_proj"]}),
        ("qwen2", {"use_dora": True}),
        ("qwen2", {"task_type": None}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        ("qwen2", {"rank_pattern": {"q_proj": 7}}),
        ("qwen2", {"alpha_pattern": {"v_proj": 64}}),
        ("qwen2", {"rank_pattern": {"0.self_attn.q_proj": 2, "[kq]_proj": 3, "proj": 9},
                   "alpha_pattern": {"model.layers.1.self_attn.(q|v)_proj": 40, "nowhere": 1, "v_proj": 3.5}}),
        ("qwen2", {"rank_pattern": {r".*\.layers\.1\..*": 6}, "use_rslora": True}),
        ("qwen2", {"rank_pattern": {"1.mlp.down_proj|q_proj": 6}, "use_dora": True, "target_modules": "all-linear"}),
        ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "rank_pattern": {"h.1.attn.c_attn": 2}}),
    ],
    ids=str,
)  # fmt: skip
def test_an_adapter_that_is_taken_gives_the_logits_of_peft(
    family: str, settings: dict[str, Any], bases: dict[str, Path], tmp_path: Path
) -> None:
    theirs = write_peft(tmp_path, bases[family], **settings)
    tokens = torch.randint(3, 290, (2, 20), generator=torch.Generator().manual_seed(2))
    ours = logits_of(load_model(tmp_path, dtype=torch.float32), tokens)
    expected = logits_of(theirs, tokens)
    assert (ours - expected).abs().max() < 2e-5 * expected.abs().max()
    with theirs.disable_adapter():
        assert (expected - logits_of(theirs, tokens)).abs().max() > 1e-3 * expected.abs().max()


def says(**values: Any) -> Change:
    return lambda config, tensors: config.update(values)


def without(*parts: str) -> Change:
    """Without the tensors whose names have one of these parts."""

    def change(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if any(part in name for part in parts)]:
            del tensors[name]

    return change


def holds(name: str, tensor: torch.Tensor) -> Change:
    return lambda config, tensors: tensors.update({name: tensor})


def renamed(old: str, new: str) -> Change:
    def change(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


REFUSED: list[tuple[Change, str]] = [
    # tensors
    (without("layers.1."), r"lacks the tensors of model\.layers\.1\.self_attn\.q_proj, which .* targets"),
    (without("layers.1.self_attn.v_proj"), r"lacks the tensors of model\.layers\.1\.self_attn\.v_proj"),
    (without("layers.1.self_attn.q_proj.lora_A"), r"layers\.1\.self_attn\.q_proj lacks lora_A\.weight"),
    (without("layers.0.self_attn.v_proj.lora_B"), r"layers\.0\.self_attn\.v_proj lacks lora_B\.weight"),
    (without(""), "lacks the tensors of"),
    (renamed(PREFIX, ""), r"PEFT's names begin with base_model\.model\."),
    (renamed("q_proj", "k_proj"), r"k_proj, which adapter_config\.json does not target"),
    (renamed("layers.1", "layers.7"), "which its base does not have; it belongs to another model"),
    (renamed("self_attn.q_proj", "input_layernorm"), "is no linear layer"),
    (renamed("model.layers.1.self_attn.q_proj", "lm_head"), "adapts lm_head, the head or an embedding"),
    (renamed("model.layers.1.self_attn.q_proj", "model.embed_tokens"), "the head or an embedding"),
    (
        holds(f"{PREFIX}lm_head.weight", torch.zeros(320, 32)),
        r"lm_head\.weight whole, which is not supported",
    ),
    (holds(f"{Q1}.lora_magnitude_vector", torch.ones(32)), "use_dora is false"),
    (holds(f"{Q1}.lora_B.bias", torch.ones(32)), "which is not supported"),
    (
        holds(f"{Q1}.lora_A.weight", torch.ones(8, 32)),
        r"is \[8, 32\], but r = 4 and the base ask for \[4, 32\]",
    ),
    (holds(f"{Q1}.lora_A.weight", torch.ones(4, 48)), r"is \[4, 48\], but"),
    (holds(f"{Q1}.lora_A.weight", torch.ones(4, 32, dtype=torch.int32)), "holds int32 numbers"),
    (says(use_dora=True), "lacks lora_magnitude_vector"),
    (says(r=8), "r = 8 and the base ask for"),
    # targets
    (says(target_modules=["q_proj", "v_proj", "embed_tokens"]), "embed_tokens, the head or an embedding"),
    (says(target_modules=["q_proj"]), r"v_proj, which adapter_config\.json does not target"),
    (says(target_modules="all-linear"), "lacks the tensors of"),
    (says(target_modules=r"(.*)*(\w+)*(.*)*(\w+\.)*!"), "takes more than 3 s"),
    (says(target_modules="(q_proj"), "is no regular expression"),
    (says(target_modules=[]), "names no target_modules"),
    (says(target_modules=None), "names no target_modules"),
    (says(target_modules=[1]), "expected names of modules"),
    (says(target_modules={"q_proj": 1}), "expected names of modules"),
    (says(layers_to_transform=[0]), "does not target"),
    (says(layers_to_transform="0"), "expected numbers of blocks"),
    (says(exclude_modules=["v_proj"]), "does not target"),
    # other keys
    (says(future_scaling=3.0), "future_scaling = 3.0, which is unknown and may change the result"),
    (says(bias="all"), "bias = 'all', which is not supported"),
    (says(bias="lora_only"), "bias"),
    (says(rank_pattern={"q_proj": 8}), r"q_proj\.lora_A\.weight is \[4, 32\], but r = 8 and"),
    (says(rank_pattern={"q_proj": 0}), r"rank_pattern = \{'q_proj': 0\}; expected numbers from 1 to 4096"),
    (says(rank_pattern={"q_proj": "4"}), "rank_pattern"),
    (says(rank_pattern=["q_proj"]), "expected an object of modules"),
    (says(rank_pattern={"(q_proj": 4}), "is no regular expression"),
    (says(rank_pattern={r"(.*)*(\w+)*(.*)*(\w+\.)*!": 4}), "takes more than 3 s"),
    (says(alpha_pattern={"q_proj": -1}), r"alpha_pattern = \{'q_proj': -1\}; expected numbers above 0"),
    (says(alpha_pattern={"q_proj": True}), "alpha_pattern"),
    (says(alpha_pattern={"q_proj": float("nan")}), "alpha_pattern"),
    (says(alpha_pattern={"q_proj": 10**400}), "alpha_pattern"),
    (says(alpha_pattern="q_proj"), "expected an object of modules"),
    (says(modules_to_save=["lm_head"]), r"modules_to_save = \['lm_head'\], which is not supported"),
    (says(lora_bias=True), "lora_bias"),
    (says(use_qalora=True), "use_qalora"),
    (says(use_bdlora={}), "use_bdlora"),
    (says(layer_replication=[[0, 2]]), "layer_replication"),
    (says(trainable_token_indices=[0]), "trainable_token_indices"),
    (says(target_parameters=["mlp.experts"]), "target_parameters"),
    (says(alora_invocation_tokens=[1]), "alora_invocation_tokens"),
    (says(megatron_config={"a": 1}), "megatron_config"),
    (says(ensure_weight_tying=True), "ensure_weight_tying"),
    (says(lora_alpha=float("nan")), "does not describe"),
    (says(lora_alpha="16"), "does not describe"),
    (says(lora_alpha=True), "does not describe"),
    (says(lora_alpha=10**400), "does not describe"),
    (says(lora_alpha=None), "does not describe"),
    (says(r=0), "does not describe"),
    (says(r="4"), "does not describe"),
    (says(r=2**40), "does not describe"),
    (says(lora_dropout="x" * 500), "does not describe"),
    (says(use_dora="false"), "use_dora = 'false'; expected true or false"),
    (says(use_rslora=1), "use_rslora = 1; expected true or false"),
    (says(peft_type="IA3"), "only LORA"),
    (says(peft_type="x" * 500), "only LORA"),
    (says(revision=5), "revision = 5; expected a text"),
    (says(base_model_name_or_path=["a"]), "base_model_name_or_path"),
    (says(base_model_name_or_path=None), "names no base model"),
    (says(init_lora_weights="lora_ga"), "changed the base too"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_an_adapter_that_peft_would_read_otherwise_is_refused(
    change: Change, said: str, bases: dict[str, Path], tmp_path: Path, adapter: Path
) -> None:
    config, tensors = json.loads((adapter / "adapter_config.json").read_text()), load_file(adapter / FILE)
    change(config, tensors)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(InputError, match=said) as caught:
        load_model(tmp_path, dtype=torch.float32)
    assert len(str(caught.value)) < 300 + len(str(tmp_path)) and "\n" not in str(caught.value)


FILE = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def adapter(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    write_peft(folder, bases["qwen2"])
    return folder


def test_a_key_twice_and_a_key_of_a_later_peft_that_is_off(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path, dirs_exist_ok=True)
    text = (adapter / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(text.replace('"r": 4', '"r": 4, "r": 4'))
    with pytest.raises(InputError, match="the key 'r' twice"):
        load_model(tmp_path, dtype=torch.float32)
    (tmp_path / "adapter_config.json").write_text(text.replace('"r": 4', '"r": 4, "use_future": false'))
    load_model(tmp_path, dtype=torch.float32)


def test_a_folder_with_a_model_and_an_adapter_is_refused(
    bases: dict[str, Path], adapter: Path, tmp_path: Path
) -> None:
    for folder in (bases["qwen2"], adapter):
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / FILE).unlink()
    with pytest.raises(InputError, match="into a folder of its own"):
        load_model(tmp_path, dtype=torch.float32)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the cases are not here")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adapter", "lacks the tensors of model.layers.1"),
        ("adapter_embed_target", "embed_tokens, the head or an embedding"),
        ("adapter_lm_head_target", "lm_head, the head or an embedding"),
        ("adapter_no_base_model_prefix", "PEFT's names begin with base_model.model."),
        ("adapter_unknown_config_key", "future_scaling"),
    ],
)
def test_adapters_that_were_taken_or_refused_for_a_wrong_reason(
    name: str, said: str, etude: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SHARED / "cases" / "c28_adapter_lacks_layer")
    outcome = etude("generate", f"./{name}", "--prompt", "def add", "--temperature", "0")
    assert outcome.code == 2 and said in outcome.err and len(outcome.err.splitlines()[-1]) < 300


def test_training_goes_on_from_an_adapter_of_peft_only_as_it_was(
    bases: dict[str, Path], adapter: Path, tmp_path: Path
) -> None:
    from etude.run import Training
    from etude.start import Options

    rows = write_instructions(tmp_path / "rows.jsonl")
    same = {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "v_proj"]}

    def begin(folder: Path, changes: dict[str, Any], base: str = "qwen2") -> Training:
        recipe = finetuning(rows, bases[base], {"train.steps": 1, "evaluate.every_steps": 1, **changes})
        training = Training(recipe, Options(runs=tmp_path / "runs", weights=str(folder), new=True))
        next(iter(training))
        return training

    begin(adapter, {"adapter": same})
    patterned = tmp_path / "patterned"
    write_peft(patterned, bases["qwen2"], alpha_pattern={"v_proj": 8})
    for folder, changes, said in (
        (
            adapter,
            {"adapter": same | {"alpha": 16.0}},
            "adapter.alpha is 16.0, but the adapter in .* has 8; use 8",
        ),
        (adapter, {"adapter": same | {"rank_stabilized": True}}, "has false; use false"),
        (adapter, {"adapter": same | {"targets": ["q_proj"]}}, "v_proj.* is only in the file"),
        (adapter, {}, "holds an adapter, but the recipe has no"),
        (
            patterned,
            {"adapter": same},
            r"has alpha_pattern = \{'v_proj': 8\.0\}, and a recipe one adapter.alpha for all",
        ),
        (bases["qwen2"], {"adapter": same}, "holds a whole model, but it trains"),
    ):
        with pytest.raises(InputError, match=said):
            begin(folder, changes)
    other = write_qwen2(tmp_path / "other", seed=5)
    bases["other"] = other
    with pytest.raises(InputError, match="was trained on other weights than those in"):
        begin(adapter, {"adapter": same}, base="other")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(adapter, elsewhere)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (elsewhere / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "who/knows"})
    )
    with pytest.raises(InputError, match="names the base 'who/knows', which is not on this machine"):
        begin(elsewhere, {"adapter": same})


def test_an_adapter_of_peft_without_a_tokenizer_answers_by_that_of_its_base(
    bases: dict[str, Path], tmp_path: Path, etude: Any
) -> None:
    from etude.export import open_chat, open_tokenizer
    from etude.text import clean

    theirs = write_peft(tmp_path / "adapter", bases["qwen2"])
    assert not list((tmp_path / "adapter").glob("*token*"))
    ours, base = open_tokenizer(tmp_path / "adapter"), open_tokenizer(bases["qwen2"])
    assert ours.fingerprint == base.fingerprint and ours.chat_template == base.chat_template is not None
    assert not open_chat(tmp_path / "adapter").is_plain
    words = ("--prompt", "total", "--temperature", "0", "--max-tokens", "8")
    outcome = etude("generate", str(tmp_path / "adapter"), *words)
    given = torch.tensor([base.encode("total").tolist()])
    answer = theirs.generate(input_ids=given, max_new_tokens=8, do_sample=False)[0, given.shape[1] :]
    assert outcome.code == 0 and clean(base.decode(answer.tolist())).strip() in outcome.out
    assert etude("generate", str(tmp_path / "adapter"), "--instruction", *words).code == 0


def test_an_adapter_with_part_of_a_tokenizer_or_without_a_base_is_refused(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    from etude.export import open_tokenizer

    write_peft(tmp_path, bases["qwen2"])
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(InputError, match="names no base model"):
        open_tokenizer(tmp_path)
