"""The encoder against transformers, and against itself by other ways."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from etude.errors import InputError
from etude.models.encoder import Encoder
from etude.models.encoder_config import EncoderConfig, Head

ROBERTA = EncoderConfig(
    vocab_size=97, n_layer=3, n_head=4, n_embd=48, n_ffn=80, context=32, type_vocab_size=1, labels=3
)
CONFIGS = {
    "roberta": ROBERTA,
    "roberta pad 4": replace(
        ROBERTA, pad_id=4, type_vocab_size=2, norm_eps=1e-6, classifier_dropout=0.2, multi=True
    ),
    "bert": replace(ROBERTA, family="bert", pad_id=0, type_vocab_size=2, norm_eps=1e-12),
}
HEADS: tuple[Head, ...] = ("masked", "classification", None)
EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
EVERY_HEAD = pytest.mark.parametrize("head", HEADS)
LENGTHS = (7, 32, 1, 7, 12, 1, 7, 32)


@EVERY
@EVERY_HEAD
def test_outputs_equal_those_of_padded_rows_in_transformers(
    config: EncoderConfig, head: Head, tmp_path: Path
) -> None:
    model, tokens, types = _model(config, head), _tokens(config), _types(config)
    theirs = _load_in_transformers(model, head, tmp_path)
    family = {"roberta": "Roberta", "bert": "Bert"}[config.family]
    kind = {"masked": "ForMaskedLM", "classification": "ForSequenceClassification", None: "Model"}[head]
    assert type(theirs).__name__ == family + kind
    for token_types in (None, types):
        with torch.no_grad():
            hidden = model(tokens, lengths=LENGTHS, token_types=token_types)
            mask = _padded(torch.ones_like(tokens), 0)
            padded_types = None if token_types is None else _padded(token_types, 0)
            outputs = theirs(_padded(tokens, config.pad_id), attention_mask=mask, token_type_ids=padded_types)
        if head == "classification":
            _assert_close(model.classify(hidden, LENGTHS), outputs.logits)
        elif head == "masked":
            _assert_close(model.masked_logits(hidden)[0], outputs.logits[mask.bool()])
        else:
            _assert_close(hidden[0], outputs.last_hidden_state[mask.bool()])


@EVERY
def test_padding_tokens_within_a_text_are_counted_as_transformers_does(
    config: EncoderConfig, tmp_path: Path
) -> None:
    model = _model(config, "classification")
    theirs = _load_in_transformers(model, "classification", tmp_path)
    tokens = _tokens(config)[:, :24].view(2, 12).clone()
    tokens[0, 3:5] = tokens[1, 11] = config.pad_id
    with torch.no_grad():
        _assert_close(
            model.classify(model(tokens)), theirs(tokens, attention_mask=torch.ones_like(tokens)).logits
        )


@EVERY
@EVERY_HEAD
def test_what_transformers_saves_loads_here(config: EncoderConfig, head: Head, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

    auto = {
        "masked": AutoModelForMaskedLM,
        "classification": AutoModelForSequenceClassification,
        None: AutoModel,
    }[head]
    torch.manual_seed(3)
    extra = {} if head else {"add_pooling_layer": False}
    theirs = auto.from_config(
        AutoConfig.for_model(**config.to_hf(head)), attn_implementation="eager", **extra
    )
    theirs = theirs.apply(_noise).eval()
    theirs.save_pretrained(tmp_path)
    read = EncoderConfig.from_hf(json.loads((tmp_path / "config.json").read_text()))
    assert read == (config if head == "classification" else replace(config, labels=0, multi=False))
    state = load_file(tmp_path / "model.safetensors")
    if head is None:  # a body alone is saved without its name
        state = {f"{config.family}.{name}": tensor for name, tensor in state.items()}
    model = Encoder(read, head).eval()
    model.load_state_dict(state, strict=True)
    tokens = _tokens(config)[:, :24].view(2, 12)
    with torch.no_grad():
        output, hidden = theirs(tokens), model(tokens)
    if head is None:
        _assert_close(hidden, output.last_hidden_state)
    else:
        _assert_close(
            model.masked_logits(hidden) if head == "masked" else model.classify(hidden), output.logits
        )


@EVERY
@EVERY_HEAD
def test_gradients_reach_every_parameter_and_equal_those_of_transformers(
    config: EncoderConfig, head: Head, tmp_path: Path
) -> None:
    model, tokens, types = _model(config, head), _tokens(config), _types(config)
    theirs = _load_in_transformers(model, head, tmp_path)
    mask = _padded(torch.ones_like(tokens), 0).bool()
    outputs = theirs(
        _padded(tokens, config.pad_id), attention_mask=mask.long(), token_type_ids=_padded(types, 0)
    )
    hidden = model(tokens, lengths=LENGTHS, token_types=types)
    if head is None:
        ours, expected = hidden[0], outputs.last_hidden_state[mask]
    elif head == "masked":
        ours, expected = model.masked_logits(hidden)[0], outputs.logits[mask]
    else:
        ours, expected = model.classify(hidden, LENGTHS), outputs.logits
    for logits in (ours, expected):
        functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1]).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in model.named_parameters():
        expected_grad = gradients[name if head else name.removeprefix(f"{config.family}.")]
        assert parameter.grad is not None and expected_grad is not None, name
        # What is added to all keys alike changes no attention, so that its gradient is zero but for rounding.
        assert parameter.grad.abs().max() > 1e-5 or name.endswith("key.bias"), name
        assert (parameter.grad - expected_grad).abs().max() < 1e-5 * max(expected_grad.abs().max(), 0.1), name


@EVERY
def test_samples_do_not_see_each_other(config: EncoderConfig) -> None:
    model, tokens = _model(config, "classification"), _tokens(config)
    changed = tokens.clone()
    changed[0, 7:39] = changed[0, 7:39].flip(0)
    with torch.no_grad():
        before, after = (model.classify(model(row, lengths=LENGTHS), LENGTHS) for row in (tokens, changed))
        alone = torch.cat([model.classify(model(part)) for part in tokens.split(LENGTHS, dim=1)])
    others = [0, 2, 3, 4, 5, 6, 7]
    assert (after[1] - before[1]).abs().max() > 1e-3
    assert (after[others] - before[others]).abs().max() < 1e-6
    _assert_close(before, alone)


@EVERY
def test_bias_is_added_to_the_scores_of_its_own_sample(config: EncoderConfig) -> None:
    """A bias that hides the last tokens of a sample gives what the sample gives without them."""
    model, tokens, kept = _model(config, None), _tokens(config), (5, 20, 1, 6, 12, 1, 2, 31)
    hidden_ends = []
    for length, seen in zip(LENGTHS, kept):
        bias = torch.zeros(config.n_head, length, length)
        bias[:, :, seen:] = -torch.inf
        hidden_ends.append(bias)
    with torch.no_grad():
        whole = model(tokens, lengths=LENGTHS, bias=hidden_ends).split(LENGTHS, dim=1)
        short = torch.cat([part[:, :seen] for part, seen in zip(tokens.split(LENGTHS, dim=1), kept)], dim=1)
        expected = model(short, lengths=kept).split(kept, dim=1)
    for ours, theirs, seen in zip(whole, expected, kept):
        _assert_close(ours[:, :seen], theirs)


def test_gradients_reach_the_bias_also_with_checkpointed_activations() -> None:
    model = _model(ROBERTA, None).train()
    gradients = []
    for checkpointed in (False, True):
        model.checkpoint_activations = checkpointed
        bias = [torch.zeros(4, length, length, requires_grad=True) for length in LENGTHS]
        torch.manual_seed(5)
        model(_tokens(ROBERTA), lengths=LENGTHS, bias=bias).logsumexp(-1).sum().backward()
        gradients.append([each.grad for each in bias])
    for plain, again, length in zip(*gradients, LENGTHS, strict=True):
        assert plain is not None and again is not None
        assert torch.equal(plain, again) and (length == 1 or bool((plain != 0).any()))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointed_activations_give_identical_gradients(dropout: float) -> None:
    model = _model(replace(ROBERTA, dropout=dropout, attention_dropout=dropout), "masked").train()
    gradients = []
    for checkpointed in (False, True):
        model.checkpoint_activations = checkpointed
        model.zero_grad()
        torch.manual_seed(5)
        model.masked_logits(model(_tokens(ROBERTA), lengths=LENGTHS)).logsumexp(-1).sum().backward()
        gradients.append(
            [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        )
    assert len(gradients[0]) == len(list(model.parameters()))
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


@EVERY
@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "classifier_dropout"])
def test_each_dropout_acts_only_while_training(config: EncoderConfig, name: str) -> None:
    none: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    model, tokens = _model(replace(config, **none | {name: 0.3}), "classification"), _tokens(config)

    def logits() -> Tensor:
        return model.classify(model(tokens, lengths=LENGTHS), LENGTHS)

    assert torch.equal(logits(), logits())
    model.train()
    assert not torch.equal(logits(), logits())


@EVERY
def test_autocast_keeps_the_stream_in_fp32_and_the_logits_near(config: EncoderConfig) -> None:
    model, tokens = _model(config, "masked"), _tokens(config)
    with torch.no_grad():
        exact = model.masked_logits(model(tokens, lengths=LENGTHS))
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model(tokens, lengths=LENGTHS)
            rough = model.masked_logits(hidden)
    assert hidden.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


@EVERY
@EVERY_HEAD
def test_new_weights_follow_the_seed_and_are_spread_as_in_transformers(
    config: EncoderConfig, head: Head
) -> None:
    from transformers import AutoConfig, AutoModelForMaskedLM

    model, again = Encoder(config, head), Encoder(config, head)
    model.init_weights(7)
    again.init_weights(7)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters()))
    again.init_weights(8)
    assert not torch.equal(model.head_weight(), again.head_weight())
    if head == "masked":
        torch.manual_seed(0)
        theirs = AutoModelForMaskedLM.from_config(AutoConfig.for_model(**config.to_hf(head))).state_dict()
        for name, parameter in model.named_parameters():
            error = 5 * 0.02 * math.sqrt(2 / parameter.numel())  # of the difference of two draws
            assert abs(parameter.mean() - theirs[name].mean()) < error, name
            assert abs(parameter.std(correction=0) - theirs[name].std(correction=0)) < error, name
            assert torch.equal(parameter == 0, theirs[name] == 0), name
        assert model.head_weight()[config.pad_id].abs().max() == 0


def test_state_holds_parameters_alone_and_the_tied_matrix_once() -> None:
    model = Encoder(ROBERTA, "masked")
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert {name for name in model.state_dict() if name.startswith("lm_head")} == {
        "lm_head.bias", "lm_head.dense.weight", "lm_head.dense.bias", "lm_head.layer_norm.weight",
        "lm_head.layer_norm.bias",
    }  # fmt: skip
    assert model.head_weight() is model.get_parameter("roberta.embeddings.word_embeddings.weight")


@EVERY
@EVERY_HEAD
def test_config_survives_what_transformers_writes(config: EncoderConfig, head: Head) -> None:
    from transformers import AutoConfig

    config = config if head == "classification" else replace(config, labels=0, multi=False)
    written = AutoConfig.for_model(**config.to_hf(head, bos_token_id=0, eos_token_id=2))
    for use_diff in (False, True):
        assert EncoderConfig.from_hf(json.loads(written.to_json_string(use_diff=use_diff))) == config


def test_labels_keep_their_names() -> None:
    values = ROBERTA.to_hf("classification", label_names=["safe", "unsafe", "unknown"])
    assert values["id2label"] == {"0": "safe", "1": "unsafe", "2": "unknown"}
    assert values["label2id"] == {"safe": 0, "unsafe": 1, "unknown": 2}


def test_published_configs_are_read() -> None:
    """config.json of microsoft/codebert-base and of sentence-transformers/all-MiniLM-L6-v2."""
    shared = {"attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1}
    codebert = shared | {
        "architectures": ["RobertaModel"], "bos_token_id": 0, "eos_token_id": 2, "hidden_size": 768,
        "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 514, "model_type": "roberta", "num_attention_heads": 12,
        "num_hidden_layers": 12, "output_past": True, "pad_token_id": 1, "type_vocab_size": 1,
        "vocab_size": 50265,
    }  # fmt: skip
    mini_lm = shared | {
        "_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "architectures": ["BertModel"],
        "gradient_checkpointing": False, "hidden_size": 384, "initializer_range": 0.02,
        "intermediate_size": 1536, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
        "model_type": "bert", "num_attention_heads": 12, "num_hidden_layers": 6, "pad_token_id": 0,
        "position_embedding_type": "absolute", "transformers_version": "4.8.2", "type_vocab_size": 2,
        "use_cache": True, "vocab_size": 30522,
    }  # fmt: skip
    assert EncoderConfig.from_hf(codebert) == EncoderConfig(50_265, 12, 12, 768, 3072, 512)
    assert EncoderConfig.from_hf(mini_lm) == EncoderConfig(
        30_522, 6, 12, 384, 1536, 512, type_vocab_size=2, norm_eps=1e-12, pad_id=0, family="bert"
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "modernbert"}, "model_type"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "gelu_new"}, "hidden_act"),
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"embedding_size": 128}, "embedding_size"),
        ({"hidden_size": "48"}, "hidden_size"),
        ({"hidden_size": 50}, "n_embd"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
        ({"classifier_dropout": "no"}, "classifier_dropout"),
        ({"pad_token_id": -1}, "pad_token_id"),
        ({"pad_token_id": 97, "max_position_embeddings": 130}, "padding token"),
        ({"max_position_embeddings": 2}, "max_position_embeddings"),
        ({"problem_type": "regression"}, "problem_type"),
        ({"id2label": None, "num_labels": "three"}, "num_labels"),
    ],
)
def test_what_the_encoder_does_not_have_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as refused:
        EncoderConfig.from_hf(ROBERTA.to_hf("classification") | changes)
    assert "\n" not in str(refused.value)


def _model(config: EncoderConfig, head: Head) -> Encoder:
    """With weights large enough that a mistake shows."""
    model = Encoder(config, head)
    model.init_weights(3)
    return model.apply(_noise).eval()


@torch.no_grad()
def _noise(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(11)
    for parameter in module.parameters(recurse=False):
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def _tokens(config: EncoderConfig) -> Tensor:
    """(1, N), without the padding token."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(config.pad_id + 1, config.vocab_size, (1, sum(LENGTHS)), generator=generator)


def _types(config: EncoderConfig) -> Tensor:
    return torch.arange(sum(LENGTHS))[None] // 3 % config.type_vocab_size


def _padded(row: Tensor, value: int) -> Tensor:
    """The samples of a row (1, N) as rows, filled to the longest."""
    return torch.nn.utils.rnn.pad_sequence(row[0].split(LENGTHS), batch_first=True, padding_value=value)


def _load_in_transformers(model: Encoder, head: Head, folder: Path) -> Any:
    from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

    auto = {
        "masked": AutoModelForMaskedLM,
        "classification": AutoModelForSequenceClassification,
        None: AutoModel,
    }[head]
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(head)))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    extra = {} if head else {"add_pooling_layer": False}
    loaded, report = auto.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True, **extra
    )
    assert not any(report.values()), report
    return loaded.eval()


def _assert_close(ours: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest."""
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
