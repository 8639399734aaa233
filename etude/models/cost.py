"""What a decoder costs, by arithmetic: parameters per part and operations per token."""

from etude.models.config import DecoderConfig


def count_parameters(config: DecoderConfig) -> dict[str, int]:
    """Exact parameters of each part: embedding, attention, feed_forward, norms, head (0 when tied), and their total."""
    query, key_value = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    embedding = config.vocab_size * config.n_embd
    biases = query + 2 * key_value if config.qkv_bias else 0
    block_norms = 2 * config.n_embd + (2 * config.head_dim if config.qk_norm else 0)
    parts = {
        "embedding": embedding,
        "attention": config.n_layer * (2 * config.n_embd * (query + key_value) + biases),
        "feed_forward": config.n_layer * 3 * config.n_embd * config.n_ffn,
        "norms": config.n_layer * block_norms + config.n_embd,
        "head": 0 if config.tied else embedding,
    }
    return parts | {"total": sum(parts.values())}


def flops_per_token(config: DecoderConfig, seq_len: int) -> float:
    """Operations of the matrix products that train one token, forward and backward, in rows of seq_len tokens.

    6 x (weights of all matrices and of the head, tied or not) + 12 x n_layer x n_head x head_dim x K, where K is the
    mean number of tokens that a token attends to: seq_len / 2, or W - W^2 / (2 seq_len) with a sliding window of W.
    The lookup of the embedding, element-wise work and recomputation are not counted.

    Source: PaLM (arXiv:2204.02311), appendix B, with the causal half of the attention counted once.
    """
    query, key_value = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    block = 2 * config.n_embd * (query + key_value) + 3 * config.n_embd * config.n_ffn
    window = min(config.sliding_window or seq_len, seq_len)
    attended = window - window**2 / (2 * seq_len)
    return 6.0 * (config.n_layer * block + config.vocab_size * config.n_embd) + 12.0 * config.n_layer * query * attended
