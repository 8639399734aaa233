"""The kinds of training: everything that a kind decides outside its loss stands in one table."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainingKind:
    """A value of train.objective, and its consequences.

    model            model.kind that it trains
    shape            shape of its samples, if the kind decides it; else the rows and data.sample do
    writes_text      whether its model answers and continues texts
    chats            whether its model takes instructions, turn by turn
    prompt           noun for the texts that its model answers
    joins_texts      whether the tokenizer puts its tokens around a text, instead of texts lying end to end
    hides_tokens     whether targets are tokens that the model does not see
    has_labels       whether its model has one output for each label
    reads_code       whether its model may have a code bias
    tokens_depend_on  keys of [train] that decide prepared tokens
    loss_keys        keys of [loss] that change its loss
    train_keys       keys of [train] that no other kind has
    source_keys      keys of a source that no other kind has
    needed_key       key that each of its sources needs
    auto_class       class of transformers that loads its model
    pipeline_tag     name of its task on the hub
    title            noun for its model
    peft_task        task_type of its adapters; None where PEFT's class for it does not fit
    """

    name: str
    model: str
    auto_class: str
    pipeline_tag: str
    title: str
    shape: str | None = None
    writes_text: bool = False
    chats: bool = False
    prompt: str = "instruction"
    joins_texts: bool = False
    hides_tokens: bool = False
    has_labels: bool = False
    reads_code: bool = False
    tokens_depend_on: tuple[str, ...] = ()
    loss_keys: tuple[str, ...] = ()
    train_keys: tuple[str, ...] = ()
    source_keys: tuple[str, ...] = ()
    needed_key: str | None = None
    peft_task: str | None = None


_KINDS = (
    TrainingKind(
        name="causal",
        model="decoder",
        auto_class="AutoModelForCausalLM",
        pipeline_tag="text-generation",
        title="causal language model",
        writes_text=True,
        chats=True,
        loss_keys=("token_weights",),
        peft_task="CAUSAL_LM",
    ),
    TrainingKind(
        name="masked",
        model="encoder",
        auto_class="AutoModelForMaskedLM",
        pipeline_tag="fill-mask",
        title="masked language model",
        hides_tokens=True,
        loss_keys=("token_weights",),
        train_keys=("mask_ratio",),
    ),
    TrainingKind(
        name="classification",
        model="encoder",
        auto_class="AutoModelForSequenceClassification",
        pipeline_tag="text-classification",
        title="classifier",
        shape="labelled",
        joins_texts=True,
        has_labels=True,
        reads_code=True,
        tokens_depend_on=("seq_len",),
        loss_keys=("label_smoothing", "class_weights", "focal_gamma"),
        source_keys=("label", "pair"),
        needed_key="label",
        peft_task="SEQ_CLS",
    ),
    TrainingKind(
        name="seq2seq",
        model="encoder-decoder",
        auto_class="AutoModelForSeq2SeqLM",
        pipeline_tag="text2text-generation",
        title="encoder-decoder",
        shape="pairs",
        writes_text=True,
        prompt="source",
        joins_texts=True,
        loss_keys=("token_weights", "label_smoothing"),
        train_keys=("target_len",),
        source_keys=("target",),
        peft_task=None,  # PEFT's own class for encoder-decoders asks transformers 5 for a removed method
    ),
)
TRAINING_KINDS = {kind.name: kind for kind in _KINDS}
