"""Odd logs as tools and people write them, each with the points that a reader of it by hand would note."""

import gzip
import math
from dataclasses import dataclass, field
from typing import Any

Points = list[dict[str, Any]]


@dataclass(frozen=True)
class Odd:
    """A log and its points: step, and every other figure that is known; `runs` where it holds several."""

    name: str
    content: str | bytes
    points: Points = field(default_factory=list)
    unit: str = "step"
    runs: list[Points] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.encode()


def at(step: int, loss: float | None = None, eval_loss: float | None = None, **others: Any) -> dict[str, Any]:
    known = {"loss": loss, "eval_loss": eval_loss, **others}
    return {"step": step, **{name: value for name, value in known.items() if value is not None}}


_TRAINER = """{
 "best_metric": null, "epoch": 2.0, "global_step": 40, "max_steps": 40, "num_train_epochs": 2,
 "log_history": [
  {"epoch": 0.5, "grad_norm": 1.5, "learning_rate": 5e-05, "loss": 2.5, "step": 10},
  {"epoch": 1.0, "grad_norm": 1.25, "learning_rate": 4e-05, "loss": 2.0, "step": 20},
  {"epoch": 1.0, "eval_loss": 2.1, "eval_accuracy": 0.5, "eval_runtime": 3.1, "eval_samples_per_second": 9.0,
   "eval_steps_per_second": 1.0, "step": 20},
  {"epoch": 1.5, "grad_norm": NaN, "learning_rate": 3e-05, "loss": 1.5, "step": 30},
  {"epoch": 2.0, "grad_norm": 1.0, "learning_rate": 2e-05, "loss": 1.25, "step": 40},
  {"epoch": 2.0, "step": 40, "total_flos": 1e15, "train_loss": 1.8125, "train_runtime": 60.0,
   "train_samples_per_second": 5.0, "train_steps_per_second": 0.7}
 ]}"""
_TRAINER_POINTS = [
    at(10, 2.5, epoch=0.5, grad_norm=1.5, learning_rate=5e-5),
    at(20, 2.0, 2.1, epoch=1.0, grad_norm=1.25, learning_rate=4e-5, metrics={"accuracy": 0.5}),
    at(30, 1.5, epoch=1.5, grad_norm=math.nan, learning_rate=3e-5),
    at(40, 1.25, epoch=2.0, grad_norm=1.0, learning_rate=2e-5),
]
_SIMPLE = [at(10, 3.0), at(20, 2.5), at(30, 2.0)]
_CSV = "step,loss\n10,3.0\n20,2.5\n30,2.0\n"

JSON = [
    Odd(
        "trainer state with a closing summary",
        _TRAINER,
        _TRAINER_POINTS,
        facts={"steps": 40, "steps_per_epoch": 20},
    ),
    Odd(
        "json lines with nan and infinity as strings",
        '{"step": 1, "loss": "NaN", "grad_norm": "Infinity"}\n{"step": 2, "loss": 2.0, "grad_norm": "1.5"}\n',
        [at(1, math.nan, grad_norm=math.inf), at(2, 2.0, grad_norm=1.5)],
    ),
    Odd(
        "json lines between lines that are none",
        '{"step": 1, "loss": 3.0}\nwarning: slow loader\n{"step": 2, "loss": 2.5}\n{"step": 3, "lo',
        [at(1, 3.0), at(2, 2.5)],
    ),
    Odd(
        "json lines that name the split in a word",
        '{"split": "train", "step": 5, "loss": 2.0}\n{"split": "val", "step": 5, "loss": 2.2, "acc": 0.5}\n'
        '{"split": "train", "step": 10, "loss": 1.5}\n',
        [at(5, 2.0, 2.2, metrics={"acc": 0.5}), at(10, 1.5)],
    ),
    Odd(
        "json lines of one value each by its tag",
        '{"tag": "train/loss", "value": 2.0, "step": 1}\n{"tag": "lr", "value": 0.1, "step": 1}\n'
        '{"tag": "train/loss", "value": 1.5, "step": 2}\n{"tag": "eval/loss", "value": 1.75, "step": 2}\n',
        [at(1, 2.0, learning_rate=0.1), at(2, 1.5, 1.75)],
    ),
    Odd(
        "json lines with objects in objects",
        '{"global_step": 1, "train": {"loss": 2.0, "grad_norm": 1.0}}\n'
        '{"global_step": 2, "train": {"loss": 1.5, "grad_norm": 0.5}, "validation": {"loss": 1.75}}\n',
        [at(1, 2.0, grad_norm=1.0), at(2, 1.5, 1.75, grad_norm=0.5)],
    ),
    Odd(
        "trainer log of llama factory",
        '{"current_steps": 10, "total_steps": 30, "loss": 1.5, "lr": 5e-05, "epoch": 0.5, "percentage": 33.3, '
        '"elapsed_time": "0:00:10"}\n{"current_steps": 20, "total_steps": 30, "loss": 1.25, "lr": 4e-05, '
        '"epoch": 1.0, "percentage": 66.6, "elapsed_time": "0:00:20"}\n',
        [at(10, 1.5, learning_rate=5e-5, epoch=0.5), at(20, 1.25, learning_rate=4e-5, epoch=1.0)],
        facts={"steps": 30},
    ),
    Odd(
        "history of keras",
        '{"loss": [2.0, 1.5, 1.25], "val_loss": [2.1, 1.75, 1.7], "val_accuracy": [0.25, 0.5, 0.5]}',
        [
            at(1, 2.0, 2.1, epoch=1.0, metrics={"accuracy": 0.25}),
            at(2, 1.5, 1.75, epoch=2.0, metrics={"accuracy": 0.5}),
            at(3, 1.25, 1.7, epoch=3.0, metrics={"accuracy": 0.5}),
        ],
        unit="epoch",
    ),
    Odd("list of objects", '[{"iter": 0, "loss": 3}, {"iter": 1, "loss": 2}]', [at(0, 3.0), at(1, 2.0)]),
    Odd(
        "an evaluation that was logged late",
        '{"step": 10, "loss": 3.0}\n{"step": 20, "loss": 2.5}\n{"step": 10, "eval_loss": 3.1}\n{"step": 30, "loss": 2.0}\n',
        [at(10, 3.0, 3.1), at(20, 2.5), at(30, 2.0)],
    ),
]

TABLES = [
    Odd(
        "csv with a byte order mark and CRLF", b"\xef\xbb\xbf" + _CSV.replace("\n", "\r\n").encode(), _SIMPLE
    ),
    Odd("csv in UTF-16, as a shell of Windows writes it", _CSV.encode("utf-16"), _SIMPLE),
    Odd("csv in UTF-16 without a mark", _CSV.encode("utf-16-le"), _SIMPLE),
    Odd("csv packed by gzip", gzip.compress(_CSV.encode()), _SIMPLE),
    Odd("csv packed by gzip and torn", gzip.compress(_CSV.encode())[:-9], _SIMPLE),
    Odd("csv with semicolons and decimal commas", "step;loss\n10;3,0\n20;2,5\n30;2,0\n", _SIMPLE),
    Odd("table with tabs", _CSV.replace(",", "\t"), _SIMPLE),
    Odd(
        "csv with thousands separators, percents and blanks",
        'step,train_loss,val_loss,val_acc\n"1,000",3.0,,\n"2,000",2.5,2.6,12.5%\n"3,000",2.0,, \n',
        [at(1000, 3.0), at(2000, 2.5, 2.6, metrics={"acc": 0.125}), at(3000, 2.0)],
    ),
    Odd(
        "metrics.csv of lightning",
        "epoch,step,lr-AdamW,train_loss_epoch,train_loss_step,val_loss\n0,49,0.001,,2.5,\n0,99,0.001,,2.0,\n"
        "0,99,,,,2.25\n0,99,,2.25,,\n1,149,0.001,,1.5,\n1,199,0.001,,1.25,\n1,199,,,,1.75\n1,199,,1.375,,\n",
        [
            at(49, 2.5, learning_rate=0.001, epoch=0.49),
            at(99, 2.0, 2.25, learning_rate=0.001, epoch=0.99),
            at(149, 1.5, learning_rate=0.001, epoch=1.49),
            at(199, 1.25, 1.75, learning_rate=0.001, epoch=1.99),
        ],
    ),
    Odd(
        "chart of two runs exported from W&B",
        '"Step","big - train/loss","big - train/loss__MIN","big - train/loss__MAX","small - train/loss",'
        '"small - train/loss__MIN","small - train/loss__MAX"\n"1","3.0","2.9","3.1","3.5","3.5","3.5"\n'
        '"2","2.5","2.5","2.5","","",""\n"3","2.0","2.0","2.0","3.0","3.0","3.0"\n',
        runs=[[at(1, 3.0), at(2, 2.5), at(3, 2.0)], [at(1, 3.5), at(3, 3.0)]],
    ),
    Odd(
        "scalars that the page of tensorboard exports",
        "Wall time,Step,Value\n1.7e9,10,3.0\n1.7e9,20,2.5\n",
        _SIMPLE[:2],
    ),
    Odd(
        "table of a model card",
        "| Training Loss | Epoch | Step | Validation Loss |\n|:---:|:---:|:---:|:---:|\n"
        "| No log | 0.5 | 10 | 2.5 |\n| 2.0 | 1.0 | 20 | 2.25 |\n",
        [at(10, None, 2.5, epoch=0.5), at(20, 2.0, 2.25, epoch=1.0)],
    ),
    Odd(
        "table of fastai",
        "epoch     train_loss  valid_loss  accuracy  time    \n0         2.5         2.25        0.5       00:10     \n"
        "1         2.0         2.0         0.75      00:11     \n",
        [at(0, 2.5, 2.25, epoch=1.0), at(1, 2.0, 2.0, epoch=2.0)],
        unit="epoch",
    ),
    Odd(
        "csv that a second run was appended to, with its header",
        _CSV + "step,loss\n10,3.25\n20,2.75\n",
        runs=[_SIMPLE, [at(10, 3.25), at(20, 2.75)]],
    ),
    Odd(
        "csv of several runs by a column",
        "run_id,step,loss\na,1,3.0\nb,1,3.5\na,2,2.0\nb,2,2.5\n",
        runs=[[at(1, 3.0), at(2, 2.0)], [at(1, 3.5), at(2, 2.5)]],
    ),
    Odd(
        "csv with comments, an index and columns of no interest",
        "# seed 17\n,step,loss,note,kl_loss\n0,10,3.0,ok,0.5\n1,20,2.5,,0.25\n",
        _SIMPLE[:2],
    ),
    Odd(
        "csv without steps",
        "loss,lr\n3.0,0.1\n2.0,0.1\n",
        [at(1, 3.0, learning_rate=0.1), at(2, 2.0, learning_rate=0.1)],
        unit="row",
    ),
    Odd(
        "steps that went back to a checkpoint",
        "step,loss\n10,3.0\n20,2.5\n30,9.0\n40,9.5\n30,2.0\n40,1.5\n",
        [*_SIMPLE, at(40, 1.5)],
    ),
]


def _bars(*states: tuple[int, str], of: int = 4, title: str = "") -> str:
    return "".join(
        "\r"
        + title
        + f"{100 * at // of:3d}%|{'█' * (10 * at // of):<10}| {at}/{of} [00:0{at}<00:09,  1.00it/s{figures}]"
        for at, figures in states
    )


LINES = [
    Odd(
        "nanoGPT",
        "tokens per iteration will be: 16,384\nnumber of parameters: 10.65M\n"
        "step 0: train loss 4.25, val loss 4.5\niter 0: loss 4.375, time 1200.50ms, mfu -100.00%\n"
        "iter 10: loss 3.0, time 12.50ms, mfu 5.00%\nstep 20: train loss 2.5, val loss 2.75\nsaving checkpoint to out\n"
        "iter 20: loss 2.25, time 250.00ms, mfu 5.10%\n",
        [
            at(0, 4.375, 4.5, seconds=1.2005),
            at(10, 3.0, seconds=0.0125),
            at(20, 2.25, 2.75, seconds=0.25),
        ],
    ),
    Odd(
        "pipes between figures",
        "step 10 | train loss 2.5 | val loss 2.75\nstep 20 | train loss 2.0 | val loss 2.5\n",
        [at(10, 2.5, 2.75), at(20, 2.0, 2.5)],
    ),
    Odd(
        "dicts that transformers prints, between progress bars",
        _bars((0, ""), (1, ""), (2, ""))
        + "\n{'loss': 2.5, 'grad_norm': 1.5, 'learning_rate': 5e-05, 'epoch': 0.5}\n"
        + _bars((3, ""), (4, ""))
        + "\n{'loss': 2.0, 'grad_norm': nan, 'learning_rate': 0.0, 'epoch': 1.0}\n"
        + _bars((0, ""), (1, ""), (2, ""), of=2)
        + "{'eval_loss': 2.25, 'eval_runtime': 1.5, 'epoch': 1.0}\n"
        "{'train_runtime': 9.5, 'train_samples_per_second': 1.0, 'train_loss': 2.25, 'epoch': 1.0}\n",
        [
            at(2, 2.5, grad_norm=1.5, learning_rate=5e-5, epoch=0.5),
            at(4, 2.0, 2.25, grad_norm=math.nan, learning_rate=0.0, epoch=1.0),
        ],
    ),
    Odd(
        "dicts of transformers 5, whose numbers are texts, without bars",
        "{'loss': '2.5', 'grad_norm': '1.5', 'learning_rate': '5e-05', 'epoch': '0.5'}\n"
        "{'eval_loss': '2.25', 'eval_runtime': '0.1', 'epoch': '0.5'}\n"
        "{'loss': '2.0', 'grad_norm': '1.25', 'learning_rate': '4e-05', 'epoch': '1'}\n"
        "{'train_runtime': '9.5', 'train_loss': '2.25', 'epoch': '1'}\n",
        [
            at(1, 2.5, 2.25, grad_norm=1.5, learning_rate=5e-5, epoch=0.5),
            at(2, 2.0, grad_norm=1.25, learning_rate=4e-5, epoch=1.0),
        ],
        unit="row",
    ),
    Odd(
        "keras with its progress",
        "Epoch 1/2\n  1/100 [..............................] - ETA: 30s - loss: 9.0 - accuracy: 0.1"
        "\x08\x08\x08\r100/100 [==============================] - 5s 50ms/step - loss: 2.5 - accuracy: 0.5 - "
        "val_loss: 2.25 - val_accuracy: 0.5\nEpoch 2/2\n"
        "100/100 ━━━━━━━━━━━━━━━━━━━━ 5s 50ms/step - accuracy: 0.75 - loss: 2.0 - val_accuracy: 0.625 - val_loss: 2.0\n",
        [
            at(1, 2.5, 2.25, epoch=1.0, metrics={"accuracy": 0.5}),
            at(2, 2.0, 2.0, epoch=2.0, metrics={"accuracy": 0.625}),
        ],
        unit="epoch",
    ),
    Odd(
        "tqdm with figures, begun anew each epoch",
        _bars((1, ", loss=3.0"), (2, ", loss=2.5"), (4, ", loss=2.25"), title="Epoch 0: ")
        + "\n"
        + _bars((2, ", loss=2.0"), (4, ", loss=1.5"), title="Epoch 1: "),
        [at(1, 3.0), at(2, 2.5), at(4, 2.25), at(6, 2.0), at(8, 1.5)],
    ),
    Odd(
        "tqdm that names no epoch",
        _bars((2, ", loss=3.0, lr=0.1"), (4, ", loss=2.5, lr=0.1"))
        + "\n"
        + _bars((2, ", loss=2.0, lr=0.1"), (4, ", loss=1.5, lr=0.1")),
        [at(step, loss, learning_rate=0.1) for step, loss in ((2, 3.0), (4, 2.5), (6, 2.0), (8, 1.5))],
    ),
    Odd(
        "bars of lightning, which show the last validation loss at each step",
        _bars(
            (2, ", v_num=0, train_loss=3.0"),
            (4, ", v_num=0, train_loss=2.5, val_loss=2.75"),
            title="Epoch 0: ",
        )
        + _bars(
            (2, ", v_num=0, train_loss=2.0, val_loss=2.75"),
            (4, ", v_num=0, train_loss=1.5, val_loss=2.5"),
            title="Epoch 1: ",
        ),
        [at(2, 3.0), at(4, 2.5, 2.75), at(6, 2.0), at(8, 1.5, 2.5)],
    ),
    Odd(
        "colours of a terminal",
        "\x1b[34m[torchtitan] \x1b[31mstep: 10  \x1b[32mloss:  8.125  \x1b[38;2;1;2;3mgrad_norm:  1.5  \x1b[33mmemory: "
        "2.00GiB(25.25%)  \x1b[34mtps: 1,234  \x1b[36mmfu: 30.00%\x1b[39m\n"
        "step: 20  loss:  7.5  grad_norm:  1.25  memory:  2.00GiB(25.25%)  tps: 1,250  mfu: 30.00%\n",
        [
            at(10, 8.125, grad_norm=1.5, memory_bytes=2**31, tokens_per_second=1234.0),
            at(20, 7.5, grad_norm=1.25, memory_bytes=2**31, tokens_per_second=1250.0),
        ],
    ),
    Odd(
        "megatron",
        " [2026-01-02 03:04:05] iteration       10/     500 | consumed samples:   160 | elapsed time per iteration (ms): "
        "250.0 | learning rate: 1.5E-04 | global batch size: 16 | lm loss: 6.5E+00 | loss scale: 1024.0 | grad norm: "
        "2.5 | number of skipped iterations: 0 | number of nan iterations: 0 |\n"
        " iteration       20/     500 | consumed samples:   320 | elapsed time per iteration (ms): 250.0 | learning "
        "rate: 3.0E-04 | lm loss: 6.0E+00 | loss scale: 1024.0 | grad norm: 2.25 | number of skipped iterations: 1 |\n"
        " validation loss at iteration 20 | lm loss value: 6.25E+00 | lm loss PPL: 5.18E+02 |\n",
        [
            at(10, 6.5, grad_norm=2.5, learning_rate=1.5e-4, loss_scale=1024.0, seconds=0.25),
            at(
                20,
                6.0,
                6.25,
                grad_norm=2.25,
                learning_rate=3e-4,
                loss_scale=1024.0,
                seconds=0.25,
                skipped=True,
            ),
        ],
        facts={"steps": 500},
    ),
    Odd(
        "llm.c",
        "step    1/1000 | loss 10.5 (+nanz)| norm 15.25 (+nanz)| lr 7.50e-07 | 3000.00 ms | 46.0% bf16 MFU | 175000 tok/s\n"
        "step    2/1000 | loss 10.25 (+0.10z)| norm 15.0 (-0.11z)| lr 1.50e-06 | 2500.00 ms | 46.0% bf16 MFU | 175000 tok/s\n"
        "val loss 10.375\n",
        [
            at(1, 10.5, grad_norm=15.25, learning_rate=7.5e-7, seconds=3.0, tokens_per_second=175000.0),
            at(
                2,
                10.25,
                10.375,
                grad_norm=15.0,
                learning_rate=1.5e-6,
                seconds=2.5,
                tokens_per_second=175000.0,
            ),
        ],
        facts={"steps": 1000},
    ),
    Odd(
        "litgpt",
        "Epoch 1 | iter 10 step 5 | loss train: 2.5, val: n/a | iter time: 250.00 ms (step) remaining time: 0:01:00\n"
        "Epoch 1 | iter 20 step 10 | loss train: 2.0, val: 2.25 | iter time: 250.00 ms (step) remaining time: 0:00:50\n",
        [at(5, 2.5, seconds=0.25, epoch=0.0), at(10, 2.0, 2.25, seconds=0.25, epoch=0.0)],
    ),
    Odd(
        "fairseq",
        "2026-01-02 03:04:05 | INFO | train_inner | epoch 001:    100 / 200 loss=6.5, nll_loss=6.25, ppl=76.1, wps=1000, "
        "num_updates=100, lr=0.0005, gnorm=1.5, loss_scale=128, train_wall=10\n"
        "2026-01-02 03:04:06 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 6.0 | nll_loss 5.75 | ppl 53.8 | "
        "wps 9000 | num_updates 200\n"
        "2026-01-02 03:04:07 | INFO | train_inner | epoch 002:    100 / 200 loss=5.5, nll_loss=5.25, ppl=38.1, wps=1000, "
        "num_updates=300, lr=0.0005, gnorm=1.25, loss_scale=128, train_wall=20\n",
        [
            at(
                100,
                6.5,
                tokens_per_second=1000.0,
                learning_rate=5e-4,
                grad_norm=1.5,
                loss_scale=128.0,
                epoch=0.5,
            ),
            at(200, None, 6.0, tokens_per_second=9000.0, epoch=1.0),
            at(
                300,
                5.5,
                tokens_per_second=1000.0,
                learning_rate=5e-4,
                grad_norm=1.25,
                loss_scale=128.0,
                epoch=1.5,
            ),
        ],
    ),
    Odd(
        "the examples of pytorch",
        "Train Epoch: 1 [0/60000 (0%)]\tLoss: 2.5\nTrain Epoch: 1 [640/60000 (1%)]\tLoss: 2.0\n\n"
        "Test set: Average loss: 1.75, Accuracy: 5000/10000 (50%)\n\n"
        "Train Epoch: 2 [0/60000 (0%)]\tLoss: 1.5\nTrain Epoch: 2 [640/60000 (1%)]\tLoss: 1.25\n",
        [at(0, 2.5), at(640, 2.0, 1.75), at(60000, 1.5), at(60640, 1.25)],
    ),
    Odd(
        "tensors printed as they are",
        "step 1 loss tensor(2.5000, device='cuda:0', grad_fn=<NllLossBackward0>)\n"
        "step 2 loss tensor(2.0000, device='cuda:0', grad_fn=<NllLossBackward0>)\nstep 3 loss np.float64(1.75)\n",
        [at(1, 2.5), at(2, 2.0), at(3, 1.75)],
    ),
    Odd(
        "the same line of two ranks",
        "[Rank 1] step=10 loss=9.0\n[Rank 0] step=10 loss=3.0\n[Rank 0] step=20 loss=2.5\n[Rank 1] step=20 loss=8.5\n",
        [at(10, 3.0), at(20, 2.5)],
    ),
    Odd(
        "composer, whose figures stand below their batch",
        "[epoch=0][batch=10/100]:\n\t Train time/batch: 9\n\t Train loss/train/total: 3.0\n[epoch=0][batch=20/100]:\n"
        "\t Train time/batch: 19\n\t Train loss/train/total: 2.5\n",
        [at(10, 3.0), at(20, 2.5)],
    ),
    Odd(
        "etude's own log.txt",
        "2026-11-27 17:41:21  attempt 1 starts: 1,010 steps, 37,792 parameters, cpu, fp32, micro-batch 10\n"
        "2026-11-27 17:41:21  step 0  validation loss 6.5  stop_rate 0.0000  exact_match 0.0000\n"
        "2026-11-27 17:41:21  step 1,000  loss 6.25  norm 2.5  lr 1.00e-03  3,646 tokens/s\n"
        "2026-11-27 17:41:21  step 1,000  validation loss 6.0  stop_rate 0.0000  exact_match 0.0000  best\n"
        "2026-11-27 17:41:21  step 1,010  loss 6.125  norm 2.0  lr 9.94e-04  10,970 tokens/s\n"
        "2026-11-27 17:41:22  step 1,000  saved step-001000, 0.5 MB\n",
        [
            at(0, None, 6.5),
            at(1000, 6.25, 6.0, grad_norm=2.5, learning_rate=1e-3, tokens_per_second=3646.0),
            at(1010, 6.125, grad_norm=2.0, learning_rate=9.94e-4, tokens_per_second=10970.0),
        ],
    ),
    Odd(
        "a language model by batches of an epoch",
        "| epoch   1 |   200/  500 batches | lr 20.00 | ms/batch 12.30 | loss  7.50 | ppl  1808.04\n"
        "| epoch   1 |   400/  500 batches | lr 20.00 | ms/batch 12.30 | loss  6.50 | ppl   665.14\n"
        "| end of epoch   1 | time: 38.23s | valid loss  6.25 | valid ppl   518.01\n"
        "| epoch   2 |   200/  500 batches | lr 5.00 | ms/batch 12.30 | loss  6.00 | ppl   403.43\n",
        [
            at(200, 7.5, learning_rate=20.0),
            at(400, 6.5, 6.25, learning_rate=20.0),
            at(700, 6.0, learning_rate=5.0),
        ],
    ),
    Odd(
        "a block of figures below the step, as OLMo prints it",
        "INFO\t[step=100/9000,epoch=0]\n    optim/total_grad_norm=0.50\n    train/CrossEntropyLoss=8.25\n"
        "    train/Perplexity=3,828\n    throughput/total_tokens=419,430,400\n    throughput/device/tokens_per_second=8,192\n"
        "INFO\t[step=200/9000,epoch=0]\n    optim/total_grad_norm=0.25\n    train/CrossEntropyLoss=7.25\n",
        [at(100, 8.25, grad_norm=0.5, tokens_per_second=8192.0), at(200, 7.25, grad_norm=0.25)],
    ),
    Odd(
        "mlx-lm",
        "Iter 1: Val loss 2.500, Val took 3.200s\n"
        "Iter 10: Train loss 2.25, Learning Rate 1.000e-05, It/sec 0.500, Tokens/sec 120.5, Trained Tokens 1234, "
        "Peak mem 5.200 GB\nIter 20: Train loss 2.0, Learning Rate 1.000e-05, It/sec 0.500, Tokens/sec 121.5, "
        "Trained Tokens 2234, Peak mem 5.200 GB\n",
        [
            at(1, None, 2.5),
            at(10, 2.25, learning_rate=1e-5, tokens_per_second=120.5),
            at(20, 2.0, learning_rate=1e-5, tokens_per_second=121.5),
        ],
    ),
    Odd(
        "lines of mmengine",
        "06/21 16:00:00 - mmengine - INFO - Iter(train) [  10/1000]  lr: 1.8000e-05  eta: 0:30:00  time: 1.2000  "
        "data_time: 0.0100  memory: 12345  loss: 1.5000\n06/21 16:00:10 - mmengine - INFO - Iter(train) [  20/1000]  "
        "lr: 1.8000e-05  eta: 0:30:00  time: 1.2000  data_time: 0.0200  memory: 12345  loss: 1.2500\n",
        [
            at(10, 1.5, learning_rate=1.8e-5, wait_seconds=0.01),
            at(20, 1.25, learning_rate=1.8e-5, wait_seconds=0.02),
        ],
        facts={"steps": 1000},
    ),
    Odd(
        "a row an epoch without the word",
        "0:\t[4s / 4s],\t\ttrain_loss: 2.0,\tval_loss: 1.5\n1:\t[4s / 9s],\t\ttrain_loss: 1.5,\tval_loss: 1.25\n",
        [at(1, 2.0, 1.5), at(2, 1.5, 1.25)],
        unit="row",
    ),
    Odd(
        "a run whose name has test in it",
        "[my-test] step 10 loss 3.0\n[my-test] step 20 loss 2.5\n[my-test] step 30 loss 2.0\n",
        _SIMPLE,
    ),
    Odd(
        "losses of other kinds, and the best so far",
        "step 10: loss: 3.0 (aux loss: 0.5, best loss: 2.9) lr: 0.1\nstep 20: loss: 2.5 (aux loss: 0.25, best loss: 2.5) "
        "lr: 0.1\nvalidation loss improved from 9.0 to 8.0, best validation loss: 8.0\n",
        [at(10, 3.0, learning_rate=0.1), at(20, 2.5, learning_rate=0.1)],
    ),
    Odd(
        "steps of an epoch over steps of all",
        "Epoch [1/2], Step [100/200], Loss: 3.0\nEpoch [1/2], Step [200/200], Loss: 2.5\n"
        "Epoch [2/2], Step [100/200], Loss: 2.0\nEpoch [2/2], Step [200/200], Loss: 1.5\n",
        [at(100, 3.0), at(200, 2.5), at(300, 2.0), at(400, 1.5)],
    ),
]
ODD = [*JSON, *TABLES, *LINES]
