"""Rules: each takes the facts of a document and yields verdicts on figures that should follow from others."""
