"""The search for named quantities: sentences and tables of a document, and the names of their figures."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from etude.verify.facts import Cell, Fact, Facts, Sentence, Table
from etude.verify.names import LOSSES, METRICS, NAMES, name_of
from etude.verify.naming import TOKENS, name_in
from etude.verify.quantities import Figure, figures_of, writes_blanks
from etude.verify.ranges import exactly
from etude.verify.reading import MOST_LINE, Block, Document

_MOST_FIGURES = 30_000
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z(\"'\[])|(?<=[a-z\d)]);\s+")
_KEY = re.compile(r"[A-Z][\w ()/-]{1,40}:\s")
# Words that make a figure one of several: of another time, a plan, a mark on the way.
_OTHER = re.compile(
    r"\b(?:next|plan(?:ned|s)?|would|could|should|might|if|expected|target|goal|instead|tried"
    r"|previous(?:ly)?|original(?:ly)?"
    r"|initial(?:ly)?|before|earlier|old|ran out|fall back|fell back|falling back|baseline"
    r"|(?:every|each|until|after|first|last)(?: \w+)?(?= (?=\W|$))|compared|versus|vs\.?|than|later"
    r"|recommend\w*|(?:did|does|do|was|were) not|didn't|doesn't"
    r"|attempt\w*|was tested|future|try|trial|version \d|v\d|phase|stage|resum\w+|estimate\w*"
    r"|forecast|crash\w*|out of memory|oom|paper|other|another|reduced|lowered|raised|changed"
    r"|switch\w*|limit|"
    r"interval|variant|window|subset|pilot|smoke)\b", re.I,
)  # fmt: skip
_MARK = re.compile(
    r"(?:\b(?:at|after|by|until|from|to|step|steps|every|each|within|in|first|last|of|past|around"
    r"|before|through|next|between|and)|[/–-])\s*$",
    re.I,
)
_CHANGE = re.compile(
    r"\s*(?:Δ|delta|change|diff\w*|improvement|gain|impact|increase|reduction|note|reason|comment|why)", re.I
)


# A figure that is the difference of two, and one that is multiplied where it stands.
DIFFERS = re.compile(
    r"(?:\bby|\bminus|\bplus|\b(?:fall|drop|rise|gain|plus|difference|gap|lead|improvement|increase|decrease"
    r"|reduction|margin|growth) (?:of|is|was))\s+(?:about |another |only |a further |just |roughly |some )?$"
    r"|\b(?:gap|difference|distance)\b[^.;,\d]{0,60}\b(?:is|was|of)\s+$|\banother $|[±Δ] ?$"
    r"|\b(?:gap|difference|delta|lead|margin):? $", re.I
)  # fmt: skip
DIFFERS_BY = re.compile(
    r"(?: (?:[Nn]ats?|[Bb]its?|points?))? (?:apart|ahead|behind|higher|lower|better|worse|more|less"
    r"|fewer|faster"
    r"|slower|larger|smaller|(?:under|over|above|below) (?:[A-Z]|the (?:first|base|other|old|previous)))\b"
)  # fmt: skip
_TIMES_NEXT = re.compile(r"\s?[x×*·]\s?[\d(]")
_TIMES_LAST = re.compile(r"\s?\)?\s?[x×*·]\s?\(?")
_WHOLE_TRAINING = re.compile(r"\b(?:at|with|over|in) $", re.I)  # at four epochs
_AT_STEP = re.compile(r"\b(?:at|after|by|\() ?steps? [\d,]+\)?[^.;]{0,40}$|\bhalf ?way\b[^.;]{0,60}$", re.I)
_NUMBERED = re.compile(
    r"(?:^|[^\w])(?:(?:steps?|epochs?) |epoch=|step=)$|\w (?:epoch|step): ?$", re.I
)  # epoch 3 is one of them
_DATA = re.compile(r"^# .{0,25}\b(?:data|dataset|corpus|collection)\b", re.I)
_ROW_OF = re.compile(r"\s*(step|epoch)[ -]?\d[\d,]*k?\s*$", re.I)
_RESULTS = re.compile(
    r"\bresults?\b[^.]{0,40}\b(?:evaluation|validation|held-out|dev|test) (?:set|split|data)\b"
    r"[^.]{0,20}:\s*$", re.I
)  # fmt: skip
_TO = re.compile(r"[^.;]{0,30}?(?:\bto\b|->|→|=>)\s*(?:about |only |just |a )?[$~(]?")
_GPU = (
    r"(?:nvidia )?(?:h200|h100|a100|l40s|l4|a10g?|v100|t4|(?:rtx ?)?4090|(?:rtx ?)?3090)"
    r"(?:[ -](?:sxm\d?|pcie|\d\dgb?|\d\d gb)){0,3}s?(?![\w])"
)
_GPUS = re.compile(rf"\s?[x×]?\s?(?:x |× )?{_GPU}", re.I)
_WORDS = (
    "single",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_COUNTED = re.compile(
    rf"\b({'|'.join(_WORDS)}) (?:({_GPU}|gpus?\b|(?:nvidia )?\w+ gpus\b)|(?:full )?epochs?\b)", re.I
)


def find_facts(document: Document) -> Facts:
    """The sentences, tables and named figures of a document."""
    facts, intro = Facts(document), ""
    facts.has_blanks = any(writes_blanks(line) for line in document.lines if len(line) <= MOST_LINE)
    for number, block in enumerate(document.blocks):
        if facts.figures > _MOST_FIGURES:
            text = " ".join(" ".join(row) for row in block.rows) or block.text
            facts.unread_figures += sum(part[:1].isdigit() for part in text.split())
            continue
        scope = (*(f"# {title}" for title in block.section), f"block {number}")
        if block.kind == "table":
            _read_table(facts, block, scope)
        elif block.kind != "code":
            known = len(facts.facts)
            _read_sentences(facts, block, scope)
            if block.kind == "item" and _RESULTS.search(intro):
                facts.facts[known:] = [_of_evaluation(each) for each in facts.facts[known:]]
        intro = intro if block.kind == "item" else block.text[-200:]
    return facts


def _of_evaluation(fact: Fact) -> Fact:
    """A figure of a list of results on held-out data, named so."""
    name = f"validation_{fact.name}" if fact.name in ("loss", "perplexity") else fact.name
    return replace(fact, name=name, label=f"evaluation {fact.label}")


def _read_sentences(facts: Facts, block: Block, scope: tuple[str, ...]) -> None:
    for number, (start, text) in enumerate(_sentences(block)):
        figures = tuple(figures_of(text, has_blanks=facts.has_blanks))
        own = (*scope, f"sentence {number}")
        sentence = Sentence(text, block.line_at(start), own, figures, block, start)
        facts.sentences.append(sentence)
        facts.figures += len(figures)
        if block.kind != "heading":
            facts.facts += _facts_of(sentence)


def _sentences(block: Block) -> Iterator[tuple[int, str]]:
    cuts = {match.end() for match in _SENTENCE.finditer(block.text)}
    cuts |= {start for start in block.starts if _KEY.match(block.text, start)}
    edges = [0, *sorted(cuts - {0}), len(block.text)]
    for start, end in itertools.pairwise(edges):
        if block.text[start:end].strip():
            yield start, block.text[start:end]


def _facts_of(sentence: Sentence) -> Iterator[Fact]:
    text, figures = sentence.text, sentence.figures
    last: tuple[str, str] | None = None
    for at, figure in enumerate(figures):
        left = figures[at - 1].end if at else 0
        right = figures[at + 1].start if at + 1 < len(figures) else len(text)
        before, after = text[left : figure.start], text[figure.end : right]
        is_to = at > 0 and bool(_TO.fullmatch(before))
        is_gpus = figure.unit in ("", "x") and figure.value < 1e5 and _GPUS.match(text, figure.end)
        name, label = name_in(text, figure, before, after, None if is_to else last)
        if is_gpus:
            name, label = "devices", "GPUs"
        if is_to and name is None and last:
            name, label = last
        if name == "epochs" and label.lower().startswith("pass") and at and last is None:
            yield from _passed(sentence, figures[at - 1], before)
        role = _role(text, figure, before, after, name, is_to=is_to)
        last = (name, label) if name else None
        if name == "tokens" and any(_DATA.search(part) for part in sentence.scope if part.startswith("# ")):
            name = "corpus_tokens"
        if name in ("batch", "global_batch") and _is_of_evaluation(sentence):
            name = "eval_batch"
        if name:
            yield Fact(name, figure, sentence.line_of(figure), sentence.scope, role, label)
    for match in _COUNTED.finditer(text):
        if match[1].lower() == "one" and not match[2]:  # `one epoch has` is no length of a training
            continue
        count = float(max(_WORDS.index(match[1].lower()), 1))
        figure = _counted(match, count)
        name = "devices" if match[2] else "epochs"
        before = text[max(0, match.start() - 40) : match.start()]
        role = _role(text, figure, before, text[match.end(1) :], name, is_to=False)
        yield Fact(
            name, figure, sentence.line_of(figure), sentence.scope, role, match[0][len(match[1]) :].strip()
        )


def _is_of_evaluation(sentence: Sentence) -> bool:
    """True of a key under the section of evaluations."""
    section = sentence.block.section[-1:]
    return bool(section) and re.match(r"(?:eval|valid|test|infer|generat)", section[0], re.I) is not None


def _passed(sentence: Sentence, figure: Figure, gap: str) -> Iterator[Fact]:
    """The tokens of `so 79.4M is 2.6 passes`."""
    is_count = figure.unit == "" and figure.value >= 1e5
    if is_count and re.fullmatch(r"\s(?:is|are|makes?|means?|was|were)\s(?:about )?", gap):
        yield Fact("tokens", figure, sentence.line_of(figure), sentence.scope, "plain", "tokens")


def _counted(match: re.Match[str], count: float) -> Figure:
    """The figure of a number in words."""
    return Figure(
        text=match[1], value=count, tight=exactly(count), loose=exactly(count), unit="", hedge="",
        start=match.start(1), end=match.end(1),
    )  # fmt: skip


def _role(text: str, figure: Figure, before: str, after: str, name: str | None, *, is_to: bool) -> str:
    if DIFFERS.search(before) or DIFFERS_BY.match(after) or (name in METRICS and figure.text[0] in "+-−"):
        return "delta"
    if _TIMES_NEXT.match(text, figure.end) or _TIMES_LAST.fullmatch(before):
        return "operand"
    if is_to:
        return "to"
    if name == "epochs" and _WHOLE_TRAINING.search(before) and re.match(r"\s*epochs\b", after):
        return "plain"
    if name == "learning_rate" and _AT_STEP.search(text, max(0, figure.start - 80), figure.start):
        return "mark"
    if name in ("steps", "epochs") and _NUMBERED.search(before):
        return "mark"
    if re.search(r"[\[{][^\[\]{}]{0,200}$", text[max(0, figure.start - 200) : figure.start]):
        return "other"  # one of a list of choices
    if re.match(r"\s*(?:->|→|=>|\bto\b\s)", after) or re.search(r"\bfrom\s+(?:about )?$", before, re.I):
        return "from"
    if (
        name in ("steps", "epochs", "tokens")
        and _MARK.search(before)
        and not re.search(r"\b(?:for|in|of)\s+$", before)
    ):
        return "mark"
    if name in ("steps", "epochs", "tokens") and re.search(
        r"\b(?:first|last|every|step|epoch|of)\s+$", before, re.I
    ):
        return "mark"
    if (
        name in ("steps", "epochs")
        and re.match(r"\s*(?:of|/)\s*\d?", after)
        and not re.match(r"\s*of (?:train|batch)", after)
    ):
        return "mark"
    window = text[max(0, figure.start - 60) : figure.start] + " " + text[figure.end : figure.end + 25]
    return "other" if name not in LOSSES and _OTHER.search(_clause(window, figure, text)) else "plain"


def _clause(window: str, figure: Figure, text: str) -> str:
    """The words about a figure: back to the clause before, on to the end of its own."""
    left = re.split(r"[.;:(]\s|, (?=and|but|then)", text[max(0, figure.start - 60) : figure.start])[-1]
    right = re.split(r"[.;:,)]", text[figure.end : figure.end + 25])[0]
    return f"{left} {right}"


def _read_table(facts: Facts, block: Block, scope: tuple[str, ...]) -> None:
    header, *body = block.rows
    rows = []
    for line, cells in zip(block.lines[1:], body):
        made = []
        for text in cells:
            figures = figures_of(text, has_blanks=facts.has_blanks)
            facts.figures += len(figures)
            made.append(Cell(text, figures[0] if len(figures) == 1 or _leads(text, figures) else None, line))
        rows.append(tuple(made))
    columns = [_name_of_column(header, rows, at) for at in range(len(header))]
    labels = [_name_of_row(row) for row in rows]
    by_row = sum(name is not None for name in columns[1:] or columns) >= sum(
        name is not None for name in labels
    )
    if block.language == "records":
        by_row = True
    names = tuple(columns if by_row else labels)
    table = Table(header, tuple(rows), scope, names, by_row, block.lines[0])
    facts.tables.append(table)
    facts.facts += _facts_of_table(table)
    for row, line in zip(body, block.lines[1:]):
        for text in row:
            several = tuple(figures_of(text, has_blanks=facts.has_blanks))
            if len(several) > 1:
                inner = Sentence(
                    text, line, (*scope, f"row {line}"), several, Block("item", text, (), (0,), (line,)), 0
                )
                facts.sentences.append(inner)


def _leads(text: str, figures: Sequence[Figure]) -> bool:
    """True if a cell says one figure first and explains it: `512 (128 x 4)`, `0.81 ± 0.02`."""
    return (
        bool(figures)
        and figures[0].start <= 1
        and bool(re.match(r"\s*(?:\(|±|\+/-|=)", text[figures[0].end :]))
    )


def _name_of_column(header: Sequence[str], rows: Sequence[Sequence[Cell]], at: int) -> str | None:
    units = {figure.unit for row in rows if at < len(row) and (figure := row[at].figure)}
    for unit in sorted(units, key=lambda each: each == ""):
        if name := name_of(header[at], unit):
            return name
    kinds = {found[1].lower() for row in rows if at < len(row) and (found := _ROW_OF.match(row[at].text))}
    if len(kinds) == 1 and rows and all(at < len(row) and _ROW_OF.match(row[at].text) for row in rows):
        return f"{kinds.pop()}s"
    return None


def _name_of_row(row: Sequence[Cell]) -> str | None:
    """The name of a row of settings, from its first cell or another of words before its figure."""
    at = next((at for at, cell in enumerate(row) if at and cell.figure), 0)
    if not at:
        return None
    unit = row[at].figure.unit if row[at].figure else ""  # type: ignore[union-attr]
    labels = [cell.text for cell in row[:at] if not cell.figure]
    return next((name for label in labels if (name := name_of(label, unit))), None)


def _facts_of_table(table: Table) -> Iterator[Fact]:
    is_log = table.by_row and len(table.rows) > 1
    is_several = not table.by_row and len(table.header) > 2 and _is_several(table)
    for number, row in enumerate(table.rows):
        for at, cell in enumerate(row[: len(table.header)]):
            name = table.names[at] if table.by_row else table.names[number] if at else None
            if at and _CHANGE.match(table.header[at]):
                continue
            if not table.by_row and _is_of_a_part(name, table.header[at] if at else ""):
                continue
            if name is None or cell.figure is None or cell.figure.unit not in (*NAMES[name].units, ""):
                continue
            if name in ("batch", "global_batch") and TOKENS.match(cell.text, cell.figure.end):
                name = "tokens_per_step"
            subject = "" if is_log or len(table.header) <= 2 else table.header[at]
            scope = (*table.scope, f"row {cell.line}") if table.by_row else (*table.scope, f"column {at}")
            role = "other" if is_log or is_several else "plain"
            label = table.header[at] if table.by_row else row[0].text
            owner = subject if role == "other" else ""
            yield Fact(name, cell.figure, cell.line, scope, role, label=label, subject=owner)


def _is_of_a_part(name: str | None, heading: str) -> bool:
    """True of `Blocks` in a column of parameters: the heading says another quantity than the row."""
    own = name_of(heading, "any") if name else None
    return own is not None and name is not None and own != name and not name.endswith(f"_{own}")


def _is_several(table: Table) -> bool:
    """True if more than one column of a table of settings holds figures."""
    return (
        sum(any(at < len(row) and row[at].figure for row in table.rows) for at in range(1, len(table.header)))
        > 1
    )
