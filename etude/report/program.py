"""Programs of a card: Python that loads an exported model, and Python that asks it something."""

from collections.abc import Callable, Sequence

from etude.recipe.schema import Recipe
from etude.records.events import Scores
from etude.report.history import History
from etude.report.markdown import quoted

_FOLDER = 'folder = "."  # where this file lies'
_LOAD_TOKENIZER = "tokenizer = AutoTokenizer.from_pretrained(folder)"

ONLY_ETUDE = [
    "# No other tool computes this model, which has a bias by kinds of code (model.code_bias).",
    "# etude train RECIPE --from FOLDER begins with its weights.",
]


def load_model(auto: str) -> list[str]:
    """Lines that load a whole model."""
    return [
        f"from transformers import {auto}, AutoTokenizer",
        "",
        _FOLDER,
        f"model = {auto}.from_pretrained(folder)",
        _LOAD_TOKENIZER,
    ]


def load_quantized(auto: str) -> list[str]:
    """Lines that load a whole model of quantised weights; without `dequantize` T5 cannot be loaded so."""
    text = "\n".join(load_model(auto)).replace(
        "AutoTokenizer\n", "AutoTokenizer, CompressedTensorsConfig\n", 1
    )
    config = "quantization_config=CompressedTensorsConfig(dequantize=True)"
    text = text.replace("from_pretrained(folder)", f"from_pretrained(folder, {config})", 1)
    return ["# pip install compressed-tensors", *text.split("\n")]


def load_gguf(auto: str, file: str, head_dim: int | None) -> list[str]:
    """Lines that load a GGUF file; head_dim: numbers of a head that transformers has to be told."""
    given = f'folder, gguf_file="{file}"'
    told = "" if head_dim is None else f", head_dim={head_dim}"
    text = "\n".join(load_model(auto)).replace("from_pretrained(folder", f"from_pretrained({given}")
    return [
        f"# llama.cpp: llama-cli -m {file}",
        "# Ollama: ollama create NAME -f Modelfile",
        "# transformers: pip install gguf",
        *text.replace(f"{given})", f"{given}{told})", 1).split("\n"),
    ]


def run_onnx(file: str, *, is_classifier: bool) -> list[str]:
    """Lines that give a text to an ONNX file."""
    labels = 'json.loads(session.get_modelmeta().custom_metadata_map["labels"])'
    end = [f"labels = {labels}", "print(labels[logits[0].argmax()])"] if is_classifier else []
    return [
        "# pip install onnxruntime",
        *(["import json", ""] if is_classifier else []),
        "import onnxruntime",
        "from transformers import AutoTokenizer",
        "",
        _FOLDER,
        f'session = onnxruntime.InferenceSession(f"{{folder}}/{file}")',
        _LOAD_TOKENIZER,
        'given = tokenizer(["def f(): pass"], padding=True, return_tensors="np", return_token_type_ids=True)',
        'feeds = {each.name: given[each.name].astype("int64") for each in session.get_inputs()}',
        "(logits,) = session.run(None, feeds)",
        *end,
    ]


def load_adapter(recipe: Recipe, auto: str, hub_id: str | None) -> list[str]:
    """Lines that load an adapter; a classifier needs its labels, and a writer to know what ends an answer.

    hub_id: of its base; None for a base that adapter_config.json names.
    """
    names, peft, labels, end = f"{auto}, AutoTokenizer", "PeftModel", [], []
    base: str = quoted(hub_id)
    find: list[str] = []
    if hub_id is None:
        peft, base = "PeftConfig, PeftModel", "base"
        find = [
            "base = PeftConfig.from_pretrained(folder).base_model_name_or_path  # give its folder elsewhere"
        ]
    if recipe.kind.has_labels:
        names = f"AutoConfig, {names}"
        labels = ['config = AutoConfig.from_pretrained(f"{folder}/adapter_classifier.json")']
    elif recipe.kind.writes_text:
        names += ", GenerationConfig"
        end = ["model.generation_config = GenerationConfig.from_pretrained(folder)  # what ends an answer"]
    return [
        f"from peft import {peft}",
        f"from transformers import {names}",
        "",
        _FOLDER,
        *find,
        *labels,
        f"model = {auto}.from_pretrained({base}{', config=config' if labels else ''})",
        "model = PeftModel.from_pretrained(model, folder)",
        *end,
        _LOAD_TOKENIZER,
    ]


def ask_model(history: History, step: int) -> list[str]:
    """Lines that ask the loaded model of a step, as it was trained; none for a model of several tasks."""
    recipe = history.run.recipe
    return [] if recipe.tasks or recipe.model.wants_code else _ASK[recipe.kind.name](history, step)


def _ask_causal(history: History, step: int) -> list[str]:
    evaluate = history.run.recipe.evaluate
    if not (history.data and history.data.summary.get("conversations")):
        return [
            'inputs = tokenizer("def ", return_tensors="pt")',
            f"output = model.generate(**inputs, max_new_tokens={evaluate.sample_tokens})",
            "print(tokenizer.decode(output[0]))",
        ]
    return [
        'messages = [{"role": "user", "content": "Write a function that reverses a string."}]',
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
        ")",
        f"output = model.generate(**inputs, max_new_tokens={evaluate.answer_tokens})",
        'answer = output[0, inputs["input_ids"].shape[1] :]',
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
    ]


def _ask_masked(history: History, step: int) -> list[str]:
    return [
        'inputs = tokenizer(f"def {tokenizer.mask_token}(self):", return_tensors="pt")',
        'place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)',
        "print(tokenizer.decode(model(**inputs).logits[0, place].argmax()))",
    ]


def _ask_labels(history: History, step: int) -> list[str]:
    """Lines that classify a text; of several labels a row by the thresholds of the scores of that step."""
    recipe = history.run.recipe
    texts = '"a text", "the second text"' if recipe.data.train[0].pair else '"a text"'
    lines = _read(texts, recipe.train.seq_len)
    scores = [each for each in history.events(Scores) if each.step == step]
    if scores and not scores[-1].confusion:
        return [*lines, *_choose_several(scores[-1])]
    return [*lines, "print(model.config.id2label[int(model(**inputs).logits.argmax())])"]


def _choose_several(scores: Scores) -> list[str]:
    thresholds: Sequence[float] = scores.thresholds or [0.5] * len(scores.labels)
    return [
        "probabilities = model(**inputs).logits[0].sigmoid().tolist()",
        "thresholds = {",
        *(f"    {quoted(label)}: {least:.9g}," for label, least in zip(scores.labels, thresholds)),
        "}",
        "names = [model.config.id2label[place] for place in range(len(probabilities))]",
        "print([name for name, each in zip(names, probabilities) if each >= thresholds[name]])",
    ]


def _ask_pairs(history: History, step: int) -> list[str]:
    recipe = history.run.recipe
    return [
        *_read('"a source"', recipe.train.seq_len),
        f"output = model.generate(**inputs, max_new_tokens={recipe.evaluate.answer_tokens})",
        "print(tokenizer.decode(output[0], skip_special_tokens=True))",
    ]


def _read(texts: str, most: int) -> list[str]:
    return [f'inputs = tokenizer({texts}, return_tensors="pt", truncation=True, max_length={most})']


_ASK: dict[str, Callable[[History, int], list[str]]] = {
    "causal": _ask_causal,
    "masked": _ask_masked,
    "classification": _ask_labels,
    "seq2seq": _ask_pairs,
}
