"""Names of all that the watch tells of a run; docs/watch.md explains each."""

FINDINGS = (
    "adapter_too_weak", "answer_in_prompt", "checkpoint_differs", "clip_saturation", "clip_skipped",
    "contamination", "data_starvation", "dead_learning_rate", "decay_too_high", "divergence",
    "dropout_too_high", "duplicates", "end_never_scored", "ended_on_noise", "epoch_step",
    "evaluation_random", "evaluation_spike", "evaluation_trains", "first_loss_off", "first_pass_collapse",
    "frozen_moved", "future_visible", "gradient_not_reaching", "gradients_dropped", "gradients_kept",
    "labels_misplaced", "labels_not_shifted", "labels_shifted_twice", "labels_shuffled", "loss_is_mean",
    "loss_mis_scaled", "memory_creep", "metric_split", "neighbour_visible", "never_moved", "no_gradient",
    "noisy_evaluation", "non_finite", "only_frequencies", "optimizer_state_lost", "optimizer_state_wrong",
    "overfitting", "padding_scored", "plateau", "precision_off", "prompt_scored", "ranks_differ",
    "rate_off_schedule", "rate_too_high", "rate_too_low", "rows_without_targets", "samples_cut",
    "samples_off_plan", "scale_collapse", "skipped_steps", "slow_rank", "slowdown", "smoothing_too_high",
    "spike", "spikes", "stall", "steps_off_plan", "template_marks_missing", "tensor_not_moved",
    "tensor_not_stepped", "trainable_not_stepped", "unknown_tokens", "update_wrong",
    "validation_rise", "weights_not_loaded",
)  # fmt: skip
