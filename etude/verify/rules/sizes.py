"""Sizes: parameters from a shape or a known model, adapters, trainable shares."""

import itertools
import re
from collections.abc import Iterator

from etude.models.catalogue import STORIES, Story
from etude.verify.facts import Fact, Facts
from etude.verify.quantities import printed
from etude.verify.ranges import Range, exactly
from etude.verify.verdicts import CONTRADICTS, UNSETTLED, Finding, Reading, judge, note, reading

_TARGETS = (
    ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj"), ("q_proj", "k_proj", "v_proj"),
    ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"), ("c_attn",),
    ("query", "value"), ("query", "key", "value"),    ("q", "v"), ("q", "k", "v", "o"), ("q_proj",),
)  # fmt: skip


_SMALLEST, _MOST_SIZES = 1e6, 4  # parameters of a model, and models of a document on one of them


def check_sizes(facts: Facts) -> Iterator[Finding]:
    """Counts of parameters."""
    for rule in (_parts, _shapes, _adapters, _known, _ranks):
        yield from rule(facts)


def _parts(facts: Facts) -> Iterator[Finding]:
    """Trainable and frozen parameters make all."""
    for claimed in facts.named("parameters"):
        trainable, frozen = (
            facts.near(claimed, "trainable_parameters"),
            facts.near(claimed, "frozen_parameters"),
        )
        if trainable and frozen and claimed.figure.unit == trainable.figure.unit == frozen.figure.unit == "":
            text = f"{trainable.figure.text} + {frozen.figure.text}"
            if max(trainable.value, frozen.value) < claimed.value * 1.5:
                yield judge("total", claimed, [reading(text, lambda a, b: a + b, trainable, frozen)])


def _shapes(facts: Facts) -> Iterator[Finding]:
    for claimed in facts.named("embedding_parameters"):
        rows, width = facts.near(claimed, "vocab_size"), facts.near(claimed, "width")
        if rows and width and not claimed.figure.unit and claimed.value > 10 * width.value:
            yield judge(
                "parameters",
                claimed,
                [
                    reading(f"{rows.figure.text} x {width.figure.text}", lambda v, d: v * d, rows, width),
                    _padded(rows, width),
                ],
            )
    for claimed in facts.named("parameters"):
        layers, width = facts.near(claimed, "layers"), facts.near(claimed, "width")
        if (
            not layers
            or not width
            or claimed.value < 1e5
            or claimed.figure.unit
            or facts.says(r"encoder.decoder|mixture|moe|experts")
        ):
            continue
        rows, ffn = facts.near(claimed, "vocab_size"), facts.near(claimed, "ffn")
        if whole := _whole_shape(facts, claimed, layers, width, rows, ffn):
            yield judge("parameters", claimed, whole, any_confirms=True)
            continue
        if rows is None and claimed.name == "parameters":
            continue
        made = _decoder_sizes(
            layers,
            width,
            rows,
            ffn,
            is_tied=bool(
                facts.says(
                    r"\btied\b|weight tying|ties"
                    r"|\bshar\w+ (?:one|the same|a single|their) (?:matrix|weights|table)"
                )
            ),
        )
        finding = judge("parameters", claimed, [made])
        yield finding
    for heads in facts.named("heads"):
        width, head = facts.near(heads, "width"), facts.near(heads, "head_dim")
        if (
            width
            and not head
            and heads.value >= 1
            and width.value % heads.value
            and width.scope[:-2] == heads.scope[:-2]
        ):
            yield note(
                CONTRADICTS,
                "parameters",
                heads.line,
                f"{heads.label} {heads.figure.text}",
                f"{width.figure.text} / {heads.figure.text} is no whole number",
                fits=f"a divisor of {width.figure.text}",
                facts=(heads, width),
            )


def _whole_shape(
    facts: Facts, claimed: Fact, layers: Fact, width: Fact, rows: Fact | None, ffn: Fact | None
) -> list[Reading]:
    """The ways to count a decoder whose sizes are said: gated or not, tied or not, with positions or not."""
    heads, groups, head = (facts.near(claimed, name) for name in ("heads", "kv_heads", "head_dim"))
    if not (rows and ffn and heads and groups and heads.value) or claimed.figure.hedge:
        return []
    d, size = width.value, head.value if head else width.value / heads.value
    attention = 2 * d * size * (heads.value + groups.value)
    tied = facts.says_tied
    places = facts.near(claimed, "seq_len")
    made = []
    for matrices in (3, 2):
        for tables in (1, 2) if tied is None else (1,) if tied else (2,):
            for learned in (0.0, places.value if places else 0.0):
                total = (
                    layers.value * (attention + matrices * d * ffn.value)
                    + (tables * rows.value + learned) * d
                )
                text = (
                    f"{layers.figure.text} layers of {printed(attention)} and {matrices} x"
                    f" {printed(d * ffn.value)}, "
                    f"{tables} x {rows.figure.text} x {width.figure.text}"
                )
                found = Range(total, total * 1.01)  # norms and biases
                made.append(
                    Reading(text, found, found.widen(0.002), (layers, width, rows, ffn, heads, groups))
                )
    return made


def _adapters(facts: Facts) -> Iterator[Finding]:
    """The parameters of a LoRA from the layers and the width, where no known model has them."""
    if models_named(facts):
        return
    for claimed in facts.named("trainable_parameters"):
        rank, layers, width = (facts.near(claimed, name) for name in ("lora_rank", "layers", "width"))
        letters = facts.says(
            r"\bq(?:_proj|uery)?\b(?:,| and| &) ?(?:k(?:_proj|ey)?\b(?:,| and) ?)?v(?:_proj"
            r"|alue)?\b(?:(?:,| and|, and) o)?"
        )
        if not rank or not layers or not width or not letters or claimed.figure.unit or claimed.figure.hedge:
            continue
        others = len(re.findall(r"\b[qo](?:_proj|uery)?\b", letters[0]))
        narrow = len(re.findall(r"\b[kv](?:_proj|ey|alue)?\b", letters[0]))
        made = []
        for groups in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16):  # of query heads that share a key and a value
            each = others * 2 + narrow * (1 + 1 / groups)
            text = f"{layers.figure.text} x {rank.figure.text} x {printed(each)} x {width.figure.text}"
            made.append(reading(text, lambda n, r, d, each=each: n * r * d * each, layers, rank, width))
        yield judge("LoRA", claimed, made, any_confirms=True)


def _padded(rows: Fact, width: Fact) -> Reading:
    padded = exactly(float(-(-rows.value // 64) * 64))
    text = f"{rows.figure.text} padded to {printed(padded.low)} x {width.figure.text}"
    return reading(text, lambda v, d: padded * d, rows, width)


def _decoder_sizes(
    layers: Fact, width: Fact, rows: Fact | None, ffn: Fact | None, *, is_tied: bool
) -> Reading:
    """From a block with one key-value head and the narrowest usual feed-forward to one with the widest."""
    d, count = width.figure.exact, layers.figure.exact
    inner = ffn.figure.exact if ffn else Range(2 * width.value, 4 * width.value)
    attention = Range(2.0, 4.0)
    block = d * d * attention + Range((d * inner * 2.0).low, (d * inner * (3.0 if True else 2.0)).high)
    if not ffn:  # gated ones are made narrower, so that three matrices are no more than the usual two of 4 d
        block = d * d * Range(6.0, 12.5)
    total = count * block * Range(1.0, 1.01)
    shown = [f"{layers.figure.text} layers of {width.figure.text}"]
    if rows:
        total = total + rows.figure.exact * d * Range(1.0, 1.0 if is_tied else 2.0) * Range(1.0, 1.06)
        shown.append(f"{rows.figure.text} rows of embedding")
    facts = tuple(each for each in (layers, width, rows, ffn) if each)
    return Reading(" and ".join(shown), total, total.widen(0.03), facts)


def models_named(facts: Facts) -> dict[str, Story]:
    """The models of the catalogue that a document names, by their name without its owner."""
    text = re.sub(r"[ _]", "-", " ".join([facts.document.name.lower(), facts.text, *_cells(facts)]))
    found = {}
    for path, story in STORIES.items():
        name = path.split("/")[1].lower()
        if name in text and re.search(
            rf"(?<![\w.]){re.escape(name)}(?![\w]|-(?:xl|large|medium)|\.\d)", text
        ):
            found[name] = story
    if "gpt2-medium" in found and not re.search(r"gpt2(?!-medium)(?![\w])", text):
        found.pop("gpt2", None)
    return found


def _cells(facts: Facts) -> Iterator[str]:
    for table in facts.tables[:200]:
        for row in table.rows[:200]:
            yield from (cell.text.lower() for cell in row[:20])


def _known(facts: Facts) -> Iterator[Finding]:
    """The parameters and adapters of a model that is known, where the document names but one."""
    stories = {id(story.config) and story.total: story for story in models_named(facts).values()}
    if not facts.says(r"\btun(?:ed|ing)|fine-?tun|adapter|lora|pre-?trained|base model|checkpoint"):
        return
    sizes = {each.value for each in facts.named("parameters") if each.value > _SMALLEST}
    if len(stories) != 1 or len(sizes) > _MOST_SIZES or facts.says(r"from scratch|\bshape of\b|\w shape\b"):
        return
    (story,) = stories.values()
    adapters = [_adapter(story, rank, facts) for rank in facts.named("lora_rank", roles=("plain", "other"))]
    for claimed in facts.named("trainable_parameters"):
        rank = facts.near(claimed, "lora_rank")
        if rank is None or claimed.figure.unit:
            continue
        made = _adapter(story, rank, facts)
        if made:
            yield judge("LoRA", claimed, made[1], any_confirms=not made[0])
    for claimed in facts.named("parameters"):
        if claimed.figure.unit or claimed.value < 1e6 or claimed.figure.hedge:
            continue
        base = exactly(float(story.total))
        if re.match("[MB]", claimed.figure.text[-1:]) and not _names(facts, claimed, story):
            continue  # of another model, which its sentence names
        readings = [Reading("the base model", base, base)]
        for found in adapters:
            readings += [
                Reading(f"the base and {each.text}", each.tight + base, each.loose + base, each.facts)
                for each in (found[1] if found else [])
            ]
        spread = claimed.figure.loose.high - claimed.figure.loose.low
        if not any(each.loose.meets(claimed.figure.loose) for each in readings) and (
            spread > 0.02 * claimed.value or "B" in claimed.figure.text or "million" in claimed.figure.text
        ):
            continue  # a name such as 1.5B, which counts otherwise
        finding = judge("parameters", claimed, readings, any_confirms=True)
        off = abs(claimed.value / story.total - 1)
        if finding.verdict == CONTRADICTS and not adapters and 0 < off < 2e-3 and _is_exact(claimed):
            why = f"{finding.why}; padding and parts that every device has may be counted"
            finding = note(
                UNSETTLED,
                "parameters",
                claimed.line,
                finding.quoted,
                why,
                fits=finding.fits,
                facts=(claimed,),
            )
        yield finding


def _is_exact(fact: Fact) -> bool:
    return fact.figure.tight.low == fact.figure.tight.high


def _names(facts: Facts, fact: Fact, story: Story) -> bool:
    """True unless the sentence of a figure names a model, and not this one."""
    sentence = facts.sentence_of(fact)
    if sentence is None:
        return True
    text = re.sub(r"[ _]", "-", sentence.text.lower()).replace("gpt-2", "gpt2")
    own = {path.split("/")[1].lower() for path, each in STORIES.items() if each is story}
    return any(name in text for name in own) or not re.search(
        r"\b\w*(?:gpt|bert|llama|t5|gen|coder|lm)(?:-?\w+)?\b", text.replace("-", " ")
    )


def _adapter(story: Story, rank: Fact, facts: Facts) -> tuple[bool, list[Reading]] | None:
    """(True if the targets are named, the ways to count the adapter)."""
    named = tuple(name for name in story.linears if facts.says(rf"(?<![\w]){name}(?![\w])") and len(name) > 1)
    letters = facts.says(r"\bq, ?k, ?v(,? (?:and )?o)?\b|\bq,? and v\b|\bq, ?v\b")
    if not named and letters:
        wanted = list(re.findall(r"[qkvo]\b", letters[0]))
        named = tuple(
            name
            for each in wanted
            for name in story.linears
            if name in (f"{each}_proj", "out_proj" if each == "o" else "")
        )
    if not named and facts.says(r"all[- ]linear"):
        named = tuple(story.linears)
    choices = [named] if named else [each for each in _TARGETS if set(each) <= set(story.linears)]
    made = []
    for targets in choices:
        one = story.count_lora(1, list(targets))
        shown = f"rank {rank.figure.text} on {', '.join(targets)}"
        made.append(reading(shown, lambda r, one=one: r * float(one), rank))
    return (bool(named), made) if made else None


def _ranks(facts: Facts) -> Iterator[Finding]:
    """The parameters of a LoRA grow with its rank, and its scale is alpha over rank."""
    pairs = []
    for count in facts.named("trainable_parameters", roles=("plain", "other")):
        rank = facts.near(count, "lora_rank")
        if (
            rank
            and rank.value >= 1
            and not count.figure.unit
            and not count.figure.hedge
            and count.figure.tight.low == count.figure.tight.high
        ):
            pairs.append((count, rank))
            if count.value % rank.value and not facts.says(r"modules_to_save|bias|head|embedding"):
                yield note(
                    CONTRADICTS,
                    "LoRA",
                    count.line,
                    count.figure.text,
                    f"each part of a LoRA of rank {rank.figure.text} has a multiple of "
                    f"{rank.figure.text} parameters, and {count.figure.text} is none",
                    fits=f"a multiple of {rank.figure.text}",
                    facts=(count, rank),
                )
    for (first, low), (second, high) in itertools.pairwise(pairs):
        if low.value != high.value and first.scope != second.scope:
            yield judge(
                "LoRA",
                second,
                [
                    reading(
                        f"{first.figure.text} x {high.figure.text} / {low.figure.text}, on the same layers",
                        lambda n, r, s: n * s / r,
                        first,
                        low,
                        high,
                    )
                ],
            )
