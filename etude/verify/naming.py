"""The name of a figure in a sentence, by the words around it and by what the sentence speaks of."""

import re

from etude.verify.names import bytes_in, metrics_in, name_after, name_before, name_of_key
from etude.verify.quantities import Figure

TOKENS = re.compile(r"\s*(?:tokens|tok\b)", re.I)
_SPENT = re.compile(r"\b(?:epochs?|steps|examples|samples|tokens)\b", re.I)
_SPAN = re.compile(
    r"\b(?:train\w*|run|gpus?|steps|epochs?|throughput|tokens/s|samples/s|tokens|finished|completed"
    r"|examples)\b.{0,40}\b(?:over|in|for|after|lasted)\s+(?:about |only |just |~)?$",
    re.I,
)
_EVERY = re.compile(
    r"\b(evaluat\w+|validat\w+|checkpoint\w*|sav(?:e|ed|es|ing)\b)[^.;]{0,45}\bevery $", re.I
)  # fmt: skip
_ONE_STEP = re.compile(
    r"\b(?:each|every|one) (?:\w+ )?(?:step|update|batch)\b(?!,)"
    r"(?:(?!\b(?:over|all|total|run|whole)\b)[^.;]){0,60}$",
    re.I,
)
_OF_TRAINING = re.compile(
    r"\s*of (?:the )?(?:whole )?(?:training|run|all steps|total steps|steps|schedule)\b", re.I
)
_WARMS = re.compile(r"\bwarm|\bramp|\bclimb|\brises?\b", re.I)
_HOLDER = {"weights": "weight_bytes", "gradients": "gradient_bytes"}
_EACH_TOOK = re.compile(
    r"\b(?:each|every|an?|one|per) (?:\w+ )?(?:(epoch)|step|update|iteration)\b[^.;,]{0,20}"
    r"\b(?:took|takes|lasted|lasts|needed|needs|of|is|was)\s+(?:about |roughly |~)?$", re.I
)  # fmt: skip
_SAMPLES = re.compile(r" (?:\w+ )?(?:sequences|samples|examples|rows)\b", re.I)
_STEP_TAKES = re.compile(
    r"\b(?:step|update|iteration)s?\b (?:\w+ ){0,2}(?:consum\w+|process\w*|uses?|sees?|saw|covers?|takes?"
    r"|contains?|averages?|draws?|is|over)\s+$", re.I
)  # fmt: skip
_FORMAT = re.compile(
    r"\b(?:in|as|at|with) (?:b?float\d\d|[bft]f?p?\d\d|int\d|\d-bit|half|full)(?: precision)?\b", re.I
)
_WARMING = re.compile(
    r"\b(?:warm\w*|ramp\w*|(?:learning rate|lr)\b.{0,40}\b(?:rises?|rising|rose|climb\w*|increases?"
    r"|grows?|goes up))\b"
    r"[^.;]{0,40}\b(?:for|over|during|in|of|within) (?:the )?(?:first )?$", re.I
)  # fmt: skip
_CORPUS = re.compile(
    r"\b(?:data|dataset|corpus|collection|training set|split|files?|documents?)\b[^.;,]{0,30}"
    r"\b(?:has|have|had|holds?|contains?|counts?|is|are|comprises?)\s+(?:about )?$", re.I
)  # fmt: skip
_OF_STEP = ("batch", "global_batch", "seq_len")
_THAT_IS = re.compile(
    r"[^.;]{0,30}(?:,? which (?:is|makes|are)|\bso|\bor|i\.e\.|=|\(|\bmakes)\s*(?:about )?", re.I
)
_KEY = re.compile(r"[\"']?([A-Za-z]\w*(?:[_.]\w+)*)[\"']?\s?[:=]\s*[\"']?")
_AMOUNTS = re.compile(
    r"\b(?:steps|updates|tokens|epochs)(?:,? (?:and|in|or|hence|so|which (?:is|are|makes?)|=))+ (?:about )?$",
    re.I,
)
_TOKENS_IN = re.compile(r"\b(?:samples|examples|documents) of $", re.I)
_WITHOUT = re.compile(r"\bwithout (?:the |its |any )?(?:\w+ )?\w+", re.I)
_FORMAT_LAST = re.compile(
    r"\b(?:in|as) (?:b?float\d\d|[bft]f?p?\d\d|int\d)(?: (?:they|it|that|this))?(?: \w+)?\s+$", re.I
)
_OF_WEIGHTS = re.compile(r"\b(?:they|it|them|weights|parameters|model)\b|^\s*in |, in ", re.I)
_LASTED = re.compile(
    r"\b(?:job|run|training|it|whole|everything|that|which|fine-?tuning|pre-?training)\b[^.;,]{0,20}"
    r"\b(?:took|takes|needed|needs|lasted|lasts|required|requires|ran for"
    r"|(?:finished|done|over|completed|ended) (?:after|in))\s+$", re.I
)  # fmt: skip
_ADAPTER = re.compile(r"\s*(?:the |our |an? |each )?(?:lora |rank-\d+ )?adapters?\b", re.I)
_IT_IS = re.compile(r",? (?:it|that|this) (?:is|was|has|had) (?:at |come to |fallen to )?(?:about )?$", re.I)
_RATE = re.compile(r"\b(?:(?:(peak|max)|(floor|min)|rate|lr)\b)[^.;\d]{0,14}$", re.I)
_LAST_ONE = re.compile(r"\blast (?:one|batch|step)\b[^.;]{0,25}$", re.I)
_LAST_ONE_AFTER = re.compile(r" \w+ (?:in|for) the last\b", re.I)
_PURPOSE = re.compile(
    r" \w+ (?:(?:are |were )?(?:for|to) (?:train(?:ing)?\b|(valid\w+|test(?:ing)?\b|evaluat\w+))|(held out))",
    re.I,
)
_STEPS_OF = re.compile(r"\b(?:steps|batches|updates|iterations) of (?:each )?$", re.I)
_PART = (
    r"\b(?:the|its|this|each|every|our|an?) (?:(?!with|and|of|has|have|uses|ties|without|model)\w+ ){{0,2}}"
    r"(?:{})s?(?: matrix| table| layer| block)?\b[^.;,]{{0,60}}"
    r"\b(?:has|have|with|holds?|takes?|counts?|is|are|needs?)\s*$"
)
_EMBEDDING = re.compile(_PART.format("embedd?ing"), re.I)
_OTHER_PART = re.compile(
    _PART.format("head|attention|mlp|ffn|feed-forward|block|layer|router|expert|projection|tower|encoder"),
    re.I,
)
_MODEL = re.compile(
    r"[ -](?:(?:dense|causal|base|chat|code|language|decoder-only|instruction-tuned|open|small|large) ){0,2}"
    r"(?:model|decoder|transformer|encoder|network|llm|lm|gpt|llama|checkpoint)s?\b(?! tokens)", re.I
)  # fmt: skip
_RESULT = re.compile(r"[A-Za-z)] ?[/x×*+] ?[A-Za-z(][\w ]{0,20} ?=\s*$")  # alpha / rank = 2
# What may follow the value of a metric, and the words before a difference of two.
_VALUE_ENDS = re.compile(r"\s*(?:$|[,.;:)(]|(?:at|on|in|after|and|while|by|for|when|from|to|again|is|was)\b)")
_DIFFERENCE = re.compile(
    r"(?:\b(?:by|gain|improve\w*|increase|reduc\w+|drop|rise|gap|margin|difference|change|ratio|share|within"
    r"|rate|decay|dropout|threshold|beta\w*|epsilon|temperature|top_p|epoch|factor|weight|warm\w*|version"
    r"|v|interval|ci|confidence|deviation|std|error|seed)\b[^,;]{0,24}|[-+±(\[/x×*=^]\s*)$", re.I
)  # fmt: skip


def name_in(
    text: str, figure: Figure, before: str, after: str, last: tuple[str, str] | None
) -> tuple[str | None, str]:
    """(the quantity that a figure is of, the words that name it); (None, "") if nothing names it.

    before, after  the words up to the figures on its two sides; last  the name of the figure before it
    """
    if re.search(r"[:=]\s*$", before):
        outside = re.sub(r"\([^()]*\)", lambda match: " " * len(match[0]), before)
        before = outside if name_before(outside, figure.unit) else before
    if key := _KEY.fullmatch(text[: figure.start]):
        named = name_of_key(key[1], figure.unit)
        name, label = (named.name, key[1]) if named else _name_of_rate(key[1], figure)
        if name or re.search(r"[_.]", key[1]):
            return name, label
    if _RESULT.search(before):
        return None, ""
    name, label = _name(before, after, figure)
    if name == "tokens" and last and last[0] in _OF_STEP and _THAT_IS.fullmatch(before):
        return "tokens_per_step", "tokens a step"
    if name == "steps" and _WARMING.search(before):
        return "warmup_steps", "warm-up"
    if name == "steps" and (kind := _EVERY.search(text, max(0, figure.start - 60), figure.start)):
        return ("eval_steps" if kind[1].lower().startswith(("ev", "va")) else "save_steps"), "every"
    if figure.unit == "%" and last and last[0] == "trainable_parameters" and before.strip() == "(":
        return "trainable_share", "trainable"
    if figure.unit == "%" and _OF_TRAINING.match(text, figure.end) and _WARMS.search(text):
        return "warmup_ratio", "share of the training"
    if name == "parameters" and _ADAPTER.match(text) and "." not in text[: figure.start]:
        return "trainable_parameters", "adapter parameters"
    if name == "trainable_share" and not re.search(
        "trainable|param|adapter", label + text[: figure.start], re.I
    ):
        return None, ""
    return (name, label) if name else _subject(text, figure)


def _name_of_rate(key: str, figure: Figure) -> tuple[str | None, str]:
    """A rate of learning by a key such as `peak`, if its figure is printed as one."""
    rate = _RATE.search(key) if 0 < figure.value < 0.02 and "e-" in figure.text else None
    return (("min_learning_rate" if rate[2] else "learning_rate"), key) if rate else (None, "")


def _subject(text: str, figure: Figure) -> tuple[str | None, str]:
    """The metric that a sentence speaks of at a figure: the last one before it, else the only one."""
    if figure.unit == "bytes":
        start = max(0, figure.start - 90)
        told = _WITHOUT.sub(lambda match: " " * len(match[0]), text[start : figure.start])
        held = bytes_in(told)
        if held is None and _FORMAT_LAST.search(told) and _OF_WEIGHTS.search(told):
            return "weight_bytes", "weights"
        return (held.name, held.name.replace("_", " ")) if held else (None, "")
    is_value = "." in figure.text or figure.unit == "%"
    if figure.unit not in ("", "%") or not is_value or not _VALUE_ENDS.match(text, figure.end):
        return None, ""
    if _DIFFERENCE.search(text[max(0, figure.start - 40) : figure.start]):
        return None, ""
    found = metrics_in(text[:600], figure.unit)
    closed = [(match.start(), match.end()) for match in re.finditer(r"\([^()]*\)", text[: figure.start])]
    before = [
        each for each in found
        if each.end <= figure.start and not any(start < each.start < end for start, end in closed)
    ]  # fmt: skip
    behind = [each for each in found if not re.match(r"\W{0,3}(?:of |was |is )?\d", text[each.end :])]
    chosen = (
        before[-1] if before else behind[0] if len({each.name for each in found}) == 1 and behind else None
    )
    if chosen is None or re.search(r"[;.] ", text[chosen.end : figure.start]):
        return None, ""
    return chosen.name, text[chosen.start : chosen.end]


def _name(before: str, after: str, figure: Figure) -> tuple[str | None, str]:
    unit = figure.unit
    before = _FORMAT.sub(lambda match: " " * len(match[0]), before)
    behind, ahead = name_after(after, unit), name_before(before, unit)
    if special := _special(before, after, behind.name if behind else "", figure):
        return special
    if (
        behind
        and behind.name == "steps"
        and re.search(r"\bepoch (?:\w+ )?(?:is|has|takes|took|of|had|was|=) (?:about )?$", before, re.I)
    ):
        return "steps_per_epoch", "steps"
    if ahead and behind and behind.name == "evaluations":
        return ahead.name, before[-90:][ahead.start : ahead.end]
    if behind and ahead and behind.name == "tokens" and ahead.name == "seq_len":
        return "seq_len", "length"
    if ahead and ahead.name in ("batch", "global_batch") and TOKENS.match(after):
        return "tokens_per_step", before[-90:][ahead.start : ahead.end]
    if behind and (behind.start <= 1 or not ahead):
        return behind.name, after[behind.start : behind.end]
    if (
        ahead
        and ahead.name == "epochs"
        and re.search(r"epoch (?!of|is|was)[a-z]", before[-90:][ahead.start :], re.I)
    ):
        return None, ""  # `the last epoch ends at 67.7`
    if ahead and ahead.name in ("steps", "max_steps") and figure.value != int(figure.value):
        return None, ""
    if ahead:
        return ahead.name, before[-90:][ahead.start : ahead.end]
    if unit == "s" and figure.value >= 600 and (_AMOUNTS.search(before) or re.match(r" at \d", after + "0")):
        return "total_seconds", "time"
    is_listed = re.search(r"(?:^|[,(:])\s*$", before) and re.match(r"\s*(?:$|[,.;()])", after)
    if unit == "s" and figure.value >= 10 and (_SPAN.search(before) or (is_listed and _SPENT.search(before))):
        return "total_seconds", "time"
    if unit == "s" and re.match(r" (?:each|apiece|a step|an update)\b", after):
        return "step_seconds", "time of a step"
    if unit == "s" and figure.value >= 60 and _LASTED.search(before):
        return "total_seconds", "time"
    if unit == "bytes" and (words := re.search(r"\bcheckpoints?\b.*", before, re.I)):
        return "checkpoint_bytes", words[0]
    return None, ""


def _special(before: str, after: str, name: str, figure: Figure) -> tuple[str | None, str] | None:
    """The name of a figure whose noun alone says another thing: `steps of 32 samples` is a batch."""
    if 0 < figure.value < 0.02 and "e-" in figure.text and _IT_IS.search(before):
        return "learning_rate", "rate"
    if 0 < figure.value < 0.02 and "e-" in figure.text and (rate := _RATE.search(before)):
        return ("min_learning_rate", "least rate") if rate[2] else ("learning_rate", "rate")
    if figure.unit == "" and re.search(r"\bvocab(?:ulary)?[_ ]?(?:size)?\b[^.;]{0,20}\bto $", before, re.I):
        return "vocab_size", "vocabulary"
    if figure.unit == "" and re.search(r"\btrainable (?:out )?of $", before, re.I):
        return "parameters", "of all"
    if figure.unit == "flops" and not name:
        return "flops", "speed"
    if figure.unit == "bytes" and (
        held := re.match(r" (?:for|of|in) (?:the |its )?(weights|gradients)\b", after)
    ):
        return _HOLDER[held[1]], held[1]
    if name in ("samples", "train_samples", "validation_samples") and (
        figure.value != int(figure.value) or _LAST_ONE.search(before) or _LAST_ONE_AFTER.match(after)
    ):
        return None, ""
    if name == "samples" and (purpose := _PURPOSE.match(after)):
        return f"{'validation' if purpose[1] or purpose[2] else 'train'}_samples", purpose[0].strip()
    if figure.unit == "s" and re.match(r" (?:of|in) (?:pure )?training\b", after):
        return "total_seconds", "training"
    if name == "tokens" and _ONE_STEP.search(before):
        return "tokens_per_step", "tokens a step"
    if figure.unit == "s" and (each := _EACH_TOOK.search(before)):
        return (
            ("epoch_seconds", "time of an epoch")
            if each[1] == "epoch"
            else ("step_seconds", "time of a step")
        )
    if figure.unit == "" and re.match(r" (?!tokens)\w+ (?:per|a|in each|in a) (?:batch|update)\b", after):
        return "batch", "samples a batch"
    if figure.unit == "" and _SAMPLES.match(after) and _STEP_TAKES.search(before):
        return "global_batch", "samples a step"
    if (
        figure.unit == ""
        and re.match(r"[ -]dim|[ -]wide", after)
        and re.search(r"\bheads of (?:size )?$", before)
    ):
        return "head_dim", "dimensions of a head"
    if name in ("samples", "train_samples") and _STEPS_OF.search(before):
        return "batch", "samples a step"
    if name == "tokens" and _STEPS_OF.search(before):
        return "tokens_per_step", "tokens a step"
    if name == "tokens" and (_TOKENS_IN.search(before) or re.match(r" tokens each\b", after)):
        return "seq_len", "length"
    of_embedding = re.search(r"\bembedd?ings?\b[^.;,]{0,20}$", before, re.I) or _EMBEDDING.search(before)
    if name == "tokens" and _CORPUS.search(before):
        return "corpus_tokens", "tokens of the data"
    if name == "parameters" and (of_embedding or _OTHER_PART.search(before)):
        return ("embedding_parameters", "embedding") if of_embedding else (None, "")
    if name in ("steps", "max_steps") and figure.value != int(figure.value):
        return None, ""
    if not name and figure.text[-1:] in "MB" and figure.unit == "" and _MODEL.match(after):
        return "parameters", "model"
    return None
