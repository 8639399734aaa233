"""A trained tokenizer is the same for the same documents, and has a small vocabulary for small ones."""

import os
import subprocess
import sys

from etude.data.bpe import train_tokenizer

CODE = ["def f(x):\n    return self._x[123456]\n\n\n" * 5, "class A:\r\n\tpass  # é 日本\n"] * 3


def test_training_is_deterministic_whatever_the_number_of_threads() -> None:
    program = (
        "from etude.data.bpe import train_tokenizer; import sys\n"
        f"print(train_tokenizer({CODE!r}, 300).fingerprint)"
    )
    prints = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout.decode()
        for threads in ("1", "2")
    ]
    assert prints == [train_tokenizer(iter(CODE), 300).fingerprint + "\n"] * 2


def test_a_small_text_gives_a_smaller_vocabulary_and_id_0_ends_documents() -> None:
    small = train_tokenizer(["ab"], 4096)
    assert small.vocab_size == 258  # the end, 256 bytes, and "ab"
    assert small.eos_id == 0 and train_tokenizer(CODE, 320).vocab_size <= 320
