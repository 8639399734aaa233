"""Parts of words that a text must have to name a quantity, so that few patterns are tried on it."""

# A text without one of the parts on the right has none of the names on the left.
_ROWS = """
warmup_ratio warmup_steps: warm
steps_per_epoch epoch_seconds evaluations_per_epoch: epoch
best_epoch: epoch
tokens_per_second: tok
tokens_per_step tokens_per_parameter: token
tokens corpus_tokens: token
eval_batch batch: batch
grad_norm: norm
max_grad_norm: norm clip
min_learning_rate learning_rate: lr rate
weight_decay: decay
dropout: dropout
validation_loss train_loss loss: loss
pass_at: pass human mbpp
validation_perplexity train_perplexity perplexity: perplex ppl
accuracy: acc
f1: f1
precision: precision
recall: recall
bleu: bleu
vocab_size: vocab pieces
kv_heads heads: head
head_dim: head dim
embedding_parameters: embed
trainable_percent trainable_parameters: train param
frozen_parameters: train frozen
non_embedding_parameters: embed
parameters: param size weight
duplicates: duplic
best_metric best_step: best
save_steps: save
patience: patience
true_positives false_positives: positiv alarm tp fp
true_negatives false_negatives: negativ tn fn
weight_bytes: weight
gradient_bytes: gradient
checkpoint_bytes: check adapter model weight
optimizer_bytes: adam optimi moment
checkpoints: check
evaluations: evaluat
gpu_utilisation: gpu
lora_alpha: alpha α
lora_scale: scal
"""
CUES_OF = {
    name: frozenset(cues.split())
    for names, cues in (row.split(":") for row in _ROWS.strip().splitlines())
    for name in names.split()
}
CUES = frozenset[str]().union(*CUES_OF.values())
