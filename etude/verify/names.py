"""Names of the quantities of a training, by the words with which documents call them."""

import re
from functools import lru_cache
from typing import NamedTuple

from etude.verify.cues import CUES, CUES_OF


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


class Name(NamedTuple):
    """A quantity: the words for it, the units that it is printed in, and if it may follow its number.

    noun     true of `32 epochs`
    setting  true if it is chosen, not measured, and so has one value in a training
    """

    words: str
    units: tuple[str, ...] = ("",)
    noun: bool = False
    setting: bool = False


_PER = r"[ _]?(?:/|per|a|an|each)[ _]?"
_SIZE = r"(?:[ _-]?size)?"
_HELD = r"(?:val(?:id(?:ation)?)?|evaluation|eval|dev|held-?out|test)"
_TIME, _SHARE = ("s", ""), ("%", "points", "")
# The first name that fits is taken where two begin and end at one place; else the longer one.
NAMES: dict[str, Name] = {
    "warmup_ratio": Name(r"warm-?[ _]?up[ _-](?:ratio|fraction|proportion|share)", ("", "%"), setting=True),
    "warmup_steps": Name(
        r"(?:lr |learning[ -]rate )?warm-?[ _]?up(?:[ _-]?(?:steps|period))?", noun=True, setting=True,
    ),
    "steps_per_epoch": Name(
        rf"(?:optimi[sz]er |update |training )?(?:steps|batches|updates|iterations){_PER}epoch"
        r"|steps_per_epoch", noun=True,
    ),
    "tokens_per_second": Name(
        rf"(?:tok(?:en)?s?{_PER}s(?:ec(?:ond)?)?(?![a-z])|tokens_per_second|token throughput)", noun=True,
    ),
    "samples_per_second": Name(
        rf"(?:train_|eval_)?(?:samples|examples|sequences|rows|images){_PER}s(?:ec(?:ond)?)?(?![a-z])"
        r"|(?:train_)?samples_per_second", noun=True,
    ),
    "steps_per_second": Name(
        rf"(?:steps?|it|its|iterations?|batches){_PER}s(?:ec(?:ond)?)?(?![a-z])|(?:train_)?steps_per_second",
        noun=True,
    ),
    "step_seconds": Name(
        rf"(?:time|seconds|sec|s|duration)?{_PER}(?:training |optimizer )?(?:step|it|iteration"
        r"|batch)(?![a-z])(?! per| of| size)|step time|time (?:of|for) (?:a|one|each) step", _TIME, noun=True,
    ),
    "epoch_seconds": Name(
        rf"(?:time|seconds|minutes|hours|duration)?{_PER}epoch(?![a-z])|epoch (?:time|duration)|time (?:of"
        r"|for) (?:an|one|each) epoch", ("s",), noun=True,
    ),
    "tokens_per_step": Name(
        rf"tokens{_PER}(?:optimi[sz]er |training |global )?(?:step|batch|update)", noun=True,
    ),
    "gpu_hours": Name(r"(?:gpu|device|accelerator|[ahv]\d00)[ -]?hours?", noun=True),
    "tokens_per_parameter": Name(rf"tokens{_PER}param\w*", noun=True),
    "micro_batch": Name(
        rf"(?:per[ _-]?(?:device|gpu)(?:[ _-]train)?|micro|device)[ _-]?batch{_SIZE}"
        rf"|(?:train[ _]?)?batch{_SIZE} ?(?:per|/|on each|\(per) ?(?:device|gpu|rank)|per[ _-](?:device"
        r"|gpu)(?![ -]hour)|per_device_train_batch_size", noun=True, setting=True,
    ),
    "accumulation": Name(
        r"(?:gradient[ _-]?)?accumulat\w*(?:[ _-](?:steps|factor))?|grad[ _-]?accum\w*(?:[ _-]steps)?"
        r"|micro-?batches(?! of)", noun=True, setting=True,
    ),
    "eval_batch": Name(rf"(?:per_device_)?{_HELD}[ _-]?batch{_SIZE}", setting=True),
    "global_batch": Name(
        rf"(?:global|effective|total(?:[ _]train)?)[ _-]?batch{_SIZE}|total_train_batch_size|(?:sequences"
        rf"|samples|examples|rows){_PER}(?:optimi[sz]er |training )?(?:step|update|iteration)(?![a-z])",
        noun=True, setting=True,
    ),
    "batch": Name(r"(?:train(?:ing)?[ _-]?)?batch(?:[ _-]?size|es of)?(?! \d| norm)", setting=True),
    "max_grad_norm": Name(
        r"max[ _-]?grad(?:ient)?[ _-]?norm|(?:gradient |grad )?clip\w*(?:[ _-](?:norm|value))?", setting=True,
    ),
    "grad_norm": Name(r"grad(?:ient)?[ _-]?norm"),
    "min_learning_rate": Name(r"(?:min(?:imum)?|final|end)[ _-](?:learning[ _-]?rate|lr)", setting=True),
    "learning_rate": Name(
        r"(?:peak |max(?:imum)? |initial |base )?(?:learning[ _-]?rate|lr)(?![a-z])(?! (?:schedul|warm))",
        setting=True,
    ),
    "weight_decay": Name(r"weight[ _-]?decay", setting=True),
    "dropout": Name(r"(?:lora[ _-]?)?dropout(?: rate)?", ("", "%"), setting=True),
    "validation_loss": Name(rf"{_HELD}[ _.-]?(?:set )?(?:cross[ -]entropy )?loss"),
    "train_loss": Name(r"train(?:ing)?[ _.-]?(?:set )?(?:cross[ -]entropy )?loss"),
    "loss": Name(r"(?:cross[ -]entropy )?loss(?![a-z])(?! (?:function|spike|curve|scal|weight))"),
    "validation_perplexity": Name(rf"{_HELD}[ _.-]?(?:perplexity|ppl)"),
    "train_perplexity": Name(r"train(?:ing)?[ _.-]?(?:perplexity|ppl)"),
    "perplexity": Name(r"perplexity|ppl(?![a-z])"),
    "accuracy": Name(rf"(?:{_HELD} |{_HELD}_|top-1 )?(?:accuracy|acc(?![a-z]))", _SHARE),
    "f1": Name(
        rf"(?:macro[ -]|micro[ -]|weighted[ -])?(?:{_HELD}[ _])?f1(?:[ _-]?(?:score|macro|micro))?", _SHARE,
    ),
    "precision": Name(
        r"(?:macro )?(?<!mixed )(?<!half )(?<!full )(?<!double )(?<!single )(?<!numerical )"
        r"precision(?![ _-](?:train|mode|format|type))", ("%", ""),
    ),
    "recall": Name(r"(?:macro )?recall", ("%", "")),
    "bleu": Name(r"(?:sacre|code)?bleu(?:[ -]?4)?(?:[ _]score)?"),
    "pass_at": Name(r"pass@\d+|humaneval|mbpp", ("%", "")),
    "vocab_size": Name(rf"vocab(?:ulary)?{_SIZE}|(?:bpe |subword |word)?pieces", noun=True, setting=True),
    "seq_len": Name(
        r"(?:context|sequence|seq|max(?:imum)?|block|input)(?:[ _-]?(?:seq\w*|token))?[ _-]?(?:length|len"
        r"|window|size)(?![a-z])|(?:sequences|rows|chunks|windows|blocks) of|context(?: of)?(?![ -]window"
        rf"|[ -]length|[a-z])|n_ctx|n_positions|max_position_embeddings|cutoff_len"
        rf"|tokens{_PER}(?:sequence|sample|example|row"
        r"|window)(?![a-z])|token[ -](?:context|sequence|window|block|sample)s?", noun=True, setting=True,
    ),
    "width": Name(
        r"d[ _]model|hidden[ _-]?(?:size|dim\w*|width)|embedding[ _-]?(?:dim\w*|size)|n_embd|model (?:dim\w*"
        r"|width)|width|(?<![\w ])d(?= ?=)", setting=True,
    ),
    "ffn": Name(
        r"(?:d_?ff|ffn|feed-?forward|intermediate|mlp)(?:[ _-]?(?:size|dim\w*|width|hidden))?", setting=True,
    ),
    "head_dim": Name(
        rf"head[ _-]?(?:dim\w*|size|width)|dim\w*{_PER}head|dim\w* each", noun=True, setting=True,
    ),
    "kv_heads": Name(
        r"(?:kv|key[ -/]?value)[ _-]?heads|num_key_value_heads|n_kv_head", noun=True, setting=True,
    ),
    "heads": Name(
        r"(?:attention |query )?heads|n_head|num_attention_heads|attention[ _]heads", noun=True, setting=True,
    ),
    "layers": Name(
        r"(?:transformer |decoder |encoder |hidden )?(?:layers?|blocks)(?![a-z])(?! of (?:\d|$))|n_layer"
        r"|num_hidden_layers"
        r"|num_layers|depth", noun=True, setting=True,
    ),
    "embedding_parameters": Name(
        r"(?:tied )?(?:token )?embedd?ings?(?: matrix| table| weights)?(?: of|:)?(?: parameters"
        r"| params)?(?![ _-]?(?:dim|size))|embedding[ _]param\w*", noun=True,
    ),
    "trainable_percent": Name(r"trainable ?\(?%\)?", ("",)),
    "trainable_share": Name(
        r"(?:trainable|share|fraction|percent\w*|ratio)(?: (?:of )?(?:trainable|share|fraction|ratio"
        r"|percent\w*|param\w*))*(?: ?[%(%)]+)?", ("%",), noun=True,
    ),
    "frozen_parameters": Name(r"(?:non-?trainable|frozen)(?:[ _]param(?:eter)?s)?", noun=True),
    "trainable_parameters": Name(
        r"trainable(?:[ _]?(?:model )?param(?:eter)?s)?|(?:lora|adapter) param(?:eter)?s", noun=True,
    ),
    "non_embedding_parameters": Name(r"non-embedding(?: param\w*)?", noun=True),
    "parameters": Name(
        r"weights(?! (?:and|decay|in (?!all)))|"
        r"(?:total |all |model |unique )*param(?:eter)?s?(?:[ _]count)?(?![a-z])"
        r"|all params|model size"
        r"|num_parameters", noun=True,
    ),
    "lora_rank": Name(
        r"(?:lora[ _-]?)?rank(?:[ _]?\(?r\)?)?|lora[ _]r(?![a-z])|(?<![\w ])r(?=$)|(?<![\w])r(?= ?[=:])",
        setting=True,
    ),
    "lora_alpha": Name(r"(?:lora[ _-]?)?alpha|α", setting=True),
    "lora_scale": Name(r"(?:lora )?scal(?:e|ing)(?: factor)?", ("", "x")),
    "validation_samples": Name(
        rf"{_HELD}[ _-]?(?:samples|examples|rows|set|size|split|pairs|data)|for (?:validation|evaluation"
        r"|testing)(?![a-z])", noun=True,
    ),
    "train_samples": Name(
        r"train(?:ing)?[ _-]?(?:samples|examples|rows|set(?: size)?|split|pairs|data(?:set)?(?: size)?)"
        r"|num examples|(?:for|to) train(?:ing)?(?![a-z])", noun=True,
    ),
    "duplicates": Name(r"(?:near-)?duplicat\w+", ("", "%"), noun=True),
    "samples_seen": Name(
        r"(?:samples|examples|rows|pairs|sequences) (?:passed through|seen|processed|trained on)", noun=True,
    ),
    "samples": Name(
        r"(?:total )?(?:samples|examples|rows|instances|pairs|dataset(?: size)?|data(?:set)? size"
        r"|num_samples)(?![a-z])", noun=True,
    ),
    "tokens": Name(
        r"(?:training |total |seen )*tokens(?: seen| processed| trained)?(?![a-z_/])(?! per)"
        r"|num_input_tokens_seen", noun=True,
    ),
    "evaluations_per_epoch": Name(rf"evaluations{_PER}epoch", noun=True),
    "evaluations": Name(r"evaluations(?! (?:in an?|per|each|a|for) )", noun=True),
    "checkpoints": Name(r"checkpoints", noun=True),
    "best_epoch": Name(r"best epoch"),
    "best_step": Name(r"best[ _](?:global[ _])?step"),
    "epochs": Name(
        r"(?:num[ _](?:train[ _])?|total |training |number of )?epochs?(?![a-z])|passes(?! (?:the"
        r"|at))", noun=True, setting=True,
    ),
    "max_steps": Name(
        r"max[ _]steps|total[ _](?:training |optimi[sz]\w+ )?steps"
        r"|num(?:ber)?[ _](?:of )?(?:training[ _])?steps|global_step|optimi[sz]ation steps",
        noun=True, setting=True,
    ),
    "steps": Name(
        r"(?:training |optimi[sz]er |optimi[sz]ation |total |update |gradient )*(?:steps?|iterations|iters?"
        r"|batches(?! of)|updates)(?![a-z_/])(?! per)", noun=True,
    ),
    "devices": Name(
        r"(?:number of |num[ _])?(?:gpus?|devices|accelerators|ranks|world[ _]size"
        r"|num_processes)(?![a-z])(?![ -]?(?:hours?|days?)\b)", ("", "x"), noun=True, setting=True,
    ),
    "checkpoint_bytes": Name(
        r"(?:full |final |each |per )?checkpoints?(?: file| on disk)?(?: size)?|(?:adapter|model"
        r"|weights?) (?:file|on disk|size)", ("bytes",), noun=True,
    ),
    "weight_bytes": Name(r"(?:model )?weights", ("bytes",), noun=True),
    "optimizer_bytes": Name(
        r"(?:adamw? |optimi[sz]er )(?:states?|memory|moments)|(?:two )?moments", ("bytes",), noun=True,
    ),
    "gradient_bytes": Name(r"gradients", ("bytes",), noun=True),
    "memory_bytes": Name(
        r"(?:peak |gpu |max |allocated |used )*(?:memory|vram|rss)(?: usage| used| allocated)?|used",
        ("bytes",), noun=True,
    ),
    "total_seconds": Name(
        r"(?:total |overall |full )?(?:train(?:ing)?[ _])?(?:wall[ -]?(?:clock|time)(?: time)?"
        r"|elapsed(?: time)?|run[ _-]?time|duration|time)(?:taken|total)?(?![a-z])|took|takes|in total"
        r"|finished in|completed in|trained for|overall|total", ("s", ""), noun=True,
    ),
    "mfu": Name(
        r"mfu|model flops? utili[sz]ation|(?:of )?(?:the "
        r"|its )?(?:[\w ]{1,12}(?:'s )?)?(?:theoretical )?peak(?: bf16| flops| throughput| performance)?",
        ("%",), noun=True,
    ),
    "gpu_utilisation": Name(r"gpu[ _-]?util\w*", ("%",), noun=True),
    "flops": Name(r"flops?(?:/s)?|compute|throughput|operations", ("flops",), noun=True),
    "corpus_tokens": Name(r"corpus[ _]tokens|dataset[ _]tokens|unique tokens", noun=True),
    "best_metric": Name(r"best_metric"),
    "save_steps": Name(r"save_steps", setting=True),
    "eval_steps": Name(r"eval(?:uation)?_(?:steps|interval|every|freq\w*)|evaluation interval", setting=True),
    "true_positives": Name(r"true[ -]positives?|tp(?![a-z])", noun=True),
    "false_positives": Name(r"false[ -](?:positives?|alarms?)|fp(?![a-z\d])", noun=True),
    "false_negatives": Name(r"false[ -]negatives?|fn(?![a-z])", noun=True),
    "true_negatives": Name(r"true[ -]negatives?|tn(?![a-z])", noun=True),
    "patience": Name(r"(?:early[ _-]stopping[ _-])?patience", setting=True),
}  # fmt: skip
SETTINGS = frozenset(name for name, each in NAMES.items() if each.setting)
LOSSES = {"loss", "train_loss", "validation_loss"}
SCORES = {"accuracy", "f1", "bleu", "pass_at", "recall", "precision"}
METRICS = LOSSES | SCORES | {"perplexity", "validation_perplexity", "train_perplexity"}
_LONGEST = 90
_COMPILED = {
    name: re.compile(rf"(?<![a-z0-9])(?<!per[ _])(?:{each.words})", re.I) for name, each in NAMES.items()
}
_CONNECTING = _set(
    """
    a about add adds altogether another approximately are around as at average be became becomes been
    beginning best by came comes declined declines decreased down dropped dropping drops end ended ending ends
    equal equals fall falling falls fell final first for from goes grew grows high highest hit improved
    increased is it its last low lowest mean need needs now number occupies occupy of only outset peak rate
    reached reaches reaching require requires rises rising rose roughly set shrank shrink shrinks size stands
    start started starting starts steps still stood take takes the then to together took total up use used
    uses value was weigh weighs went were with
    """
)
_ADJECTIVES = _set(
    """
    additional all annotated attention bpe clean cleaned code curated decoder dense different distinct encoder
    filtered full gradient hand-written identical in instruction java key-value labeled labelled long model
    more nvidia of optimiser optimization optimizer python query raw real short source such text total
    trainable training transformer unique unlabelled update warm-up warmup
    """
)
_IN_KEYS = _set(
    """
    a at best base config data default final first for global in last learning limit lora max model n num
    number of optimizer p rate run samples sequences size start stage the total train trainer training value
    """
)
# Words that part a number from the noun behind it; others describe the noun.
_PARTING = _set(
    """
    a about after all an and another are as at batches be before but by compute cost decoding during each eval
    evaluation every extra few fewer for from had has have if in into is it its less long more of on one or
    other our over per shot since so steps takes test than that the their then these they this those to took
    training-free unique unseen using validation was we were when where which while with words
    """
)
_VARIANT = re.compile(r"(?:no|without|w/o|with|half)\b", re.I)  # a row of an ablation
_WORD = re.compile(r"[A-Za-z][\w'-]*")


class Found(NamedTuple):
    """A name in a text: where its words begin and end."""

    name: str
    start: int
    end: int


@lru_cache(maxsize=20_000)
def name_of(label: str, unit: str = "") -> str | None:
    """The quantity that a label of a table or a key stands for, if its words are nearly all of it."""
    text = " ".join(label[:_LONGEST].split())
    if _VARIANT.match(text):
        return None
    found = max(_find(text, unit), key=lambda each: (each.end - each.start, -each.start), default=None)
    if found is None:
        return None
    rest = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text[: found.start] + " " + text[found.end :])
    return found.name if len(_WORD.findall(rest)) <= 3 else None


@lru_cache(maxsize=5_000)
def name_of_key(key: str, unit: str) -> Found | None:
    """The quantity of a key such as `max_train_steps`; None if it has a word that says something else."""
    found = max(_find(key, unit), key=lambda each: (each.end - each.start, -each.start), default=None)
    if found is None:
        return None
    rest = re.findall(r"[a-z]+", f"{key[: found.start]} {key[found.end :]}".lower())
    return found if set(rest) <= _IN_KEYS else None


@lru_cache(maxsize=20_000)
def name_before(text: str, unit: str) -> Found | None:
    """The name that a figure has from the words before it: `batch size of`, `loss fell from`."""
    text = text[-_LONGEST:]
    best: Found | None = None
    for found in _find(text, unit):
        gap = re.sub(r"^\)(?=\W*$)|^ \([A-Z]{2,8}\)|\bin (?:all|total)\b", "", text[found.end :])
        words = [word.lower() for word in _WORD.findall(gap)]
        if re.search(r"[.;,|)]\s|(?<![A-Za-z-])\d", gap) or len(words) > 5 or not set(words) <= _CONNECTING:
            continue
        if best is None or (found.end, -found.start) > (best.end, -best.start):
            best = found
    return best


@lru_cache(maxsize=20_000)
def name_after(text: str, unit: str) -> Found | None:
    """The name that a figure has from the words after it: `epochs`, `training samples`, `of peak`."""
    text = text[:60]
    best: Found | None = None
    for found in _find(text, unit):
        gap = text[: found.start]
        words = [word.lower() for word in _WORD.findall(gap)]
        if (
            not NAMES[found.name].noun
            or text[: found.end].endswith(" of")  # `sequences of` names the number behind it
            or re.search(r"[^\w\s'-]|[\d]", gap)
            or len(words) > 3
            or not (
                set(words) <= _ADJECTIVES
                or (len(words) <= 2 and found.name != "total_seconds" and not set(words) & _PARTING)
            )
        ):
            continue
        if best is None or (found.start, -found.end) < (best.start, -best.end):
            best = found
    return best


@lru_cache(maxsize=5_000)
def bytes_in(text: str) -> Found | None:
    """The last of what takes bytes that a text names: weights, gradients, a checkpoint, memory."""
    return max(_find(text, "bytes"), key=lambda each: (each.end, -each.start), default=None)


@lru_cache(maxsize=5_000)
def metrics_in(text: str, unit: str) -> list[Found]:
    """The losses, perplexities and scores that a text names, in its order, the longer of two at one place."""
    found = sorted(
        (each for each in _find(text, unit) if each.name in METRICS), key=lambda each: (each.start, -each.end)
    )
    kept: list[Found] = []
    for each in found:
        if not kept or each.start >= kept[-1].end:
            kept.append(each)
    return kept


def _find(text: str, unit: str) -> list[Found]:
    lower = text.lower()
    cues = {cue for cue in CUES if cue in lower}
    return [
        Found(name, match.start(), match.end())
        for name, pattern in _COMPILED.items()
        if name not in CUES_OF or not cues.isdisjoint(CUES_OF[name])
        if unit in NAMES[name].units or (unit == "any")
        for match in pattern.finditer(text)
        if match.end() > match.start()
    ]
