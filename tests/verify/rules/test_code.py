"""Python that cannot train."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('```python\nimport torch\n\ndef train(model, loader, optimizer):\n    for batch in loader:\n        optimizer.zero_grad()\n        model(batch).loss.backward()\n        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n        optimizer.step()\n```\n', []),
        ('```python\nimport torch\n\ndef train(model, loader, optimizer):\n    for batch in loader:\n        optimizer.zero_grad()\n        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n        model(batch).loss.backward()\n        optimizer.step()\n```\n', ['clip_grad_norm_(...)']),
        ('```python\nimport torch\n\ndef train(model, loader, optimizer):\n    for batch in loader:\n        optimizer.zero_grad()\n        model(batch).loss.backward()\n        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n```\n', ['backward()']),
        ('```python\nimport torch\n\ndef train(model, loader, optimizer):\n    for batch in loader:\n        model(batch).loss.backward()\n        optimizer.zero_grad()\n        optimizer.step()\n```\n', ['zero_grad()']),
        ('```python\nimport torch\n\ndef train(model, loader, optimizer):\n    for batch in loader:\n        optimizer.zero_grad()\n        optimizer.step()\n        model(batch).loss.backward()\n```\n', ['step()']),
        ('A complete script:\n\n```python\nimport torch\n\ndef train(model, loader, optimizer):\n    for batch in loader:\n        optimizer.zero_grad()\n        model(batch).loss.backward()\n        optimizer.step()\n        evaluate(model)\n```\n', ['evaluate']),
        ('```python\nimport torch\n\ndef train(model, loader, optimizer):\n    for batch in loader:\n        optimizer.zero_grad()\n        model(batch).loss.backward()\n        optimizer.step()\n        evaluate(model)\n```\n', []),
        ('A complete script:\n\n```python\nimport torch\n\ndef train(model, loader, optimizer):\n    for batch in loader:\n        optimizer.zero_grad()\n        model(batch).loss.backward()\n        optimizer.step()\n        YourMetric(model)\n```\n', []),
        ('```python\nimport torch\n\ndef train(model, loader, optimizer):\n    for batch in loader:\n        model(batch).loss.backward()\n        optimizer.step()\n```\n', ['backward()']),
        ('```python\ntext = tokenizer.decode(ids)\nprint(tokenizer.decode(text))\n```\n', ['tokenizer.decode(text)']),
        ('```python\nprint(x)\n```\n', []),
        ('```python\nthis is no python\n```\n', []),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong
