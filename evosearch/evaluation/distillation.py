"""Fine-tuning a compact network on the outputs and attention maps of the network it came from."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import final

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from evosearch.errors import InputError
from evosearch.evaluation.data import SearchSplit, TrainSplit, require_split
from evosearch.evaluation.models import torch_seeded
from evosearch.evaluation.scoring import device_of, evaluation_mode, score
from evosearch.evaluation.training import EpochRecord, OnEpoch, run_epochs
from evosearch.seeding import Stream, integer


class FinetuneConfig(BaseModel):
    """How a compact network is fine-tuned.

    Attributes:
        epochs: passes over the train split.
        batch_size: images per step, at most.
        lr: learning rate of the first step; a cosine takes it to zero.
        weight_decay: L2 penalty on all parameters.
        temperature: softens both networks' logits.
        alpha: weight of the softened logits against the labels: 0 is labels only, 1 none.
        attention: weight of attention transfer; 0 is none.
        attention_layers: patterns of the modules whose attention maps are matched; empty takes
            the last module of each image size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.05, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, ge=0, le=1)
    attention: float = Field(default=0.0, ge=0)
    attention_layers: tuple[str, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a fine-tuning went.

    Attributes:
        history: one record per epoch, the first of the network before its first step.
        best_epoch: the epoch of least loss on the search split, whose weights the student has.
        attention_layers: the modules whose attention maps were matched.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    attention_layers: tuple[str, ...]

    @property
    def best(self) -> EpochRecord:
        """The record of the best epoch."""
        return self.history[self.best_epoch]


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float, alpha: float
) -> Tensor:
    """Returns `(1 - alpha) CE + alpha T^2 KL(teacher_T || student_T)`, the mean over images.

    Hinton, Vinyals and Dean 2015, section 2: the square keeps the gradients of the soft part at
    the size of the hard part's at any temperature.

    Args:
        student: logits, `(images, classes)`.
        teacher: logits, `(images, classes)`.
        labels: `(images,)`.
        temperature: T, which divides both logits.
        alpha: weight of the soft part.
    """
    hard = functional.cross_entropy(student, labels)
    soft = functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    return (1 - alpha) * hard + alpha * temperature**2 * soft


def attention_map(features: Tensor) -> Tensor:
    """Returns where a layer looks: the sum over channels of its squares, of unit length.

    Zagoruyko and Komodakis 2017, section 3.1 (`F_sum^2`). Its size does not depend on the number
    of channels, so a pruned layer can be compared with the layer that it came from.

    Args:
        features: `(images, channels, height, width)`.

    Returns:
        `(images, height * width)`.
    """
    return functional.normalize(features.square().sum(1).flatten(1), dim=1)


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Returns half the squared distance of attention maps, summed over layers, mean over images.

    Zagoruyko and Komodakis 2017, eq. 2, with the distance squared as in their code; Hu et al.
    2018 fine-tune pruned networks with it.

    Args:
        student: one map per layer, `(images, positions)`.
        teacher: likewise.
    """
    pairs = zip(student, teacher, strict=True)
    return torch.stack([0.5 * (s - t).square().sum(1).mean() for s, t in pairs]).sum()


def distil(
    teacher: nn.Module,
    student: nn.Module,
    train: TrainSplit,
    search: SearchSplit,
    config: FinetuneConfig,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> Distillation:
    """Fine-tunes a student on its teacher's outputs and keeps its best epoch.

    The best epoch is that of least cross-entropy on the search split; the network as it came
    counts as epoch 0. The weights are a function of the two networks, the data, the config, the
    seed and the number of threads.

    Args:
        teacher: not changed.
        student: changed in place, and left in evaluation mode.
        train: what is learned from.
        search: what the best epoch is chosen by.
        config: the `[finetune]` section.
        seed: of order and augmentation.
        on_epoch: called after every epoch, and once before the first.

    Raises:
        InputError: an attention layer is not in both networks.
        EvaluationError: a loss is no longer finite.
    """
    require_split(search, SearchSplit)
    rng = torch.Generator().manual_seed(integer(seed, Stream.FINETUNING, "images"))
    layers = _attention_layers(teacher, student, train, config)
    best = _BestEpoch(student, search, config.epochs, on_epoch)
    seeded = torch_seeded(integer(seed, Stream.FINETUNING, "dropout"), device_of(student))
    with (
        seeded,
        evaluation_mode(teacher),
        _outputs(teacher, layers) as teacher_features,
        _outputs(student, layers) as student_features,
    ):

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                target = teacher(images)
            total = distillation_loss(
                student(images),
                target,
                labels,
                temperature=config.temperature,
                alpha=config.alpha,
            )
            if layers:
                total = total + config.attention * attention_loss(
                    [attention_map(student_features[name]) for name in layers],
                    [attention_map(teacher_features[name]) for name in layers],
                )
            return total

        best.record(None)
        for train_loss in run_epochs(student, train, config, loss, rng):
            best.record(train_loss)
    best.restore()
    return Distillation(
        history=tuple(best.history), best_epoch=best.epoch, attention_layers=layers
    )


@final
class _BestEpoch:
    """Scores a network epoch by epoch and remembers the weights of its best."""

    def __init__(
        self, model: nn.Module, search: SearchSplit, epochs: int, on_epoch: OnEpoch | None
    ) -> None:
        self._model, self._search, self._epochs = model, search, epochs
        self._on_epoch = on_epoch
        self._began = time.perf_counter()
        self._loss = math.inf
        self._state: dict[str, Tensor] = {}
        self.epoch = 0
        self.history: list[EpochRecord] = []

    def record(self, train_loss: float | None) -> None:
        result = score(self._model, self._search)
        if result.loss < self._loss:
            self._loss, self.epoch = result.loss, len(self.history)
            state = self._model.state_dict()
            self._state = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.history.append(
            EpochRecord(
                epoch=len(self.history),
                epochs=self._epochs,
                train_loss=train_loss,
                search=result,
                seconds=time.perf_counter() - self._began,
            )
        )
        if self._on_epoch is not None:
            self._on_epoch(self.history[-1])

    def restore(self) -> None:
        self._model.load_state_dict(self._state)
        self._model.eval()


def _attention_layers(
    teacher: nn.Module, student: nn.Module, train: TrainSplit, config: FinetuneConfig
) -> tuple[str, ...]:
    """Returns the modules whose attention maps are to be matched, in the teacher's order."""
    if config.attention == 0:
        return ()
    sizes = _image_sizes(teacher, train)
    shared = {n: size for n, size in _image_sizes(student, train).items() if sizes.get(n) == size}
    for pattern in config.attention_layers:
        if not any(fnmatchcase(name, pattern) for name in shared):
            raise InputError(
                f"[finetune] attention_layers: {pattern!r} matches no module that gives feature"
                " maps of one size in both networks"
            )
    if config.attention_layers:
        return tuple(
            name
            for name in sizes
            if name in shared and any(fnmatchcase(name, p) for p in config.attention_layers)
        )
    last = {size: name for name, size in sizes.items() if name in shared}
    if not last:
        raise InputError("[finetune] attention: the networks share no feature maps; set it to 0")
    return tuple(last.values())


def _image_sizes(model: nn.Module, train: TrainSplit) -> dict[str, tuple[int, ...]]:
    """Returns the height and width of every module's feature maps, in the order of their end."""
    names = [name for name, _ in model.named_modules() if name]
    probe = train.images[:1].to(device_of(model))
    with evaluation_mode(model), torch.no_grad(), _outputs(model, names) as outputs:
        model(probe)
    return {
        name: tuple(output.shape[2:])
        for name, output in outputs.items()
        if output.ndim == 4 and output.shape[2:].numel() > 1
    }


@contextmanager
def _outputs(model: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Yields what the named modules gave in the latest forward pass, in the order of their end."""
    outputs: dict[str, Tensor] = {}

    def watch(name: str) -> RemovableHandle:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            outputs.pop(name, None)
            if isinstance(output, Tensor):
                # A clone, because the next module may work in place.
                outputs[name] = output.clone()

        return model.get_submodule(name).register_forward_hook(keep)

    handles = [watch(name) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
