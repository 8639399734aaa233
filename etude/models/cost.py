"""The cost of a decoder, by arithmetic: parameters per part and operations per token."""

from dataclasses import dataclass

from etude.models.decoder_config import DecoderConfig


def count_parameters(config: DecoderConfig) -> dict[str, int]:
    """Exact parameters of each part, and their total; a tied head counts 0."""
    query, key_value = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    embedding = config.vocab_size * config.n_embd
    biases = (query + 2 * key_value) * config.qkv_bias + config.n_embd * config.out_bias
    feed_forward = 3 * config.n_embd * config.n_ffn + (2 * config.n_ffn + config.n_embd) * config.mlp_bias
    block_norms = 2 * config.n_embd + (2 * config.head_dim if config.qk_norm else 0)
    parts = {
        "embedding": embedding,
        "attention": config.n_layer * (2 * config.n_embd * (query + key_value) + biases),
        "feed_forward": config.n_layer * feed_forward,
        "norms": config.n_layer * block_norms + config.n_embd,
        "head": 0 if config.tied else embedding,
    }
    return parts | {"total": sum(parts.values())}


@dataclass(frozen=True)
class Cost:
    """Operations of the matrix products, forward and backward, for a token read and for a target scored."""

    per_token: float
    per_target: float

    def operations(self, tokens: float, targets: float) -> float:
        """Operations for a number of tokens, of which so many are targets."""
        return self.per_token * tokens + self.per_target * targets


def training_cost(config: DecoderConfig, seq_len: int, *, adapter: int | None = None) -> Cost:
    """The cost of training in sequences of seq_len tokens; adapter: parameters of one over frozen weights.

    Trained weights cost 6 operations each (forward, gradient of inputs, gradient of weights), frozen ones 4.
    """
    head = config.vocab_size * config.n_embd
    everything = flops_per_token(config, seq_len)
    if adapter is None:
        return Cost(everything - 6.0 * head, 6.0 * head)
    matrices = sum(count_parameters(config)[part] for part in ("attention", "feed_forward"))
    return Cost(everything - 6.0 * head - 2.0 * matrices + 6.0 * adapter, 4.0 * head)


def cost_of(
    matrices: float, head: float, *, attended: float = 0.0, at_targets: float = 0.0, adapter: int = 0
) -> Cost:
    """The cost of a model by what it multiplies: weights that each token meets, and those that a target does.

    attended: heads x head_dim x the mean number of tokens attended to, over all layers; its 12 operations are
    products of activations, which frozen weights do not spare. at_targets: the same of a target's attention.
    """
    each = 4.0 if adapter else 6.0
    return Cost(each * matrices + 12.0 * attended + 6.0 * adapter, each * head + 12.0 * at_targets)


def trainable_line(trainable: int, total: int) -> str:
    """`trainable 2,179,072 of 1,545,893,376 (0.1410 %)`."""
    return f"trainable {trainable:,} of {total:,} ({100 * trainable / total:.4f} %)"


def flops_per_token(config: DecoderConfig, seq_len: int) -> float:
    """Operations of the matrix products that train one token of a row of seq_len, forward and backward.

    6 x (weights of all matrices and of the head, tied or not) + 12 x n_layer x n_head x head_dim x K, where K
    is the mean number of tokens that a token attends to: seq_len / 2, or W - W^2 / (2 seq_len) with a sliding
    window of W. The lookup of the embedding, element-wise work and recomputation are not counted.

    Source: PaLM (arXiv:2204.02311), appendix B, with the causal half of the attention counted once.
    """
    query, key_value = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    block = 2 * config.n_embd * (query + key_value) + 3 * config.n_embd * config.n_ffn
    windows = [min(config.window(layer) or seq_len, seq_len) for layer in range(config.n_layer)]
    attended = sum(window - window**2 / (2 * seq_len) for window in windows)
    return 6.0 * (config.n_layer * block + config.vocab_size * config.n_embd) + 12.0 * query * attended
