"""The lines that `etude demo` prints at its end."""

import gzip
import lzma

from etude.cli.printing import print_text
from etude.records.events import Evaluation, Generation
from etude.records.store import Run


def print_outcome(run: Run) -> None:
    """Samples, bits per byte beside gzip and xz on the same held-out bytes, and what to try next."""
    events = [entry.event for entry in run.ledger().entries]
    scores = [event for event in events if isinstance(event, Evaluation)]
    samples = [event for event in events if isinstance(event, Generation)]
    for sample in samples[-len(run.recipe.evaluate.prompts) :]:
        print_text(f"--- {sample.prompt!r} continues\n{sample.prompt}{sample.text}\n")
    if scores and scores[-1].bits_per_byte is not None:
        text = held_out_text(run)
        rows = [("this model", scores[-1].bits_per_byte), *compressors(text)]
        print_text(f"bits per byte of {len(text):,} held-out bytes, each token scored once:")
        for name, bits in rows:
            print_text(f"  {name:<12} {bits:.3f}")
    print_text("\nbetter, and longer: etude demo train.steps=2000")


def held_out_text(run: Run) -> bytes:
    """The validation documents of a run, end to end, as they were before tokenising."""
    from etude.data.prepared import prepare

    corpus = prepare(run.recipe)
    held_out = corpus.validation
    assert held_out is not None
    spans, eos_id = held_out.spans, corpus.tokenizer.eos_id
    texts = (spans.tokens[start:end] for start, end in zip(spans.starts, spans.ends))
    return "".join(corpus.tokenizer.decode(text[text != eos_id].tolist()) for text in texts).encode()


def compressors(text: bytes) -> list[tuple[str, float]]:
    """Bits per byte of a text by compressors that everybody has."""
    sizes = {"gzip -9": len(gzip.compress(text, 9)), "xz -9": len(lzma.compress(text, preset=9))}
    return [(name, 8 * size / len(text)) for name, size in sizes.items()]
