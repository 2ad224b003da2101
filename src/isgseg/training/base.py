"""What every method's LightningModule does: hyper-parameters, steps, optimizer, checkpoints."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from isgseg.data.coco import Target
from isgseg.data.datamodule import Batch
from isgseg.errors import InputError, check
from isgseg.models.checkpoint import migrate
from isgseg.models.methods import require_method
from isgseg.models.optimizer import optimization
from isgseg.models.settings import Thresholds, TrainingMetadata
from isgseg.models.tta import choose_symmetries
from isgseg.training.overflow import forget_overflow, require_finite_weights
from isgseg.training.scoring import ScoredModule
from isgseg.training.settings import TrainingSettings

log = logging.getLogger(__name__)

TRAINING_KEYS = tuple(TrainingSettings.model_fields)
MAX_BAD_STEPS = 20  # losses that are not finite, one after the other, before training gives up


class GranuleModule(ScoredModule):
    """A network that finds granules; its hyper-parameters are plain and rebuild it without config.

    A method derives from it, names the settings of its network, and says how the network is built,
    what it loses and what it detects. Everything else is the same for all.

    Args:
        network: of `settings`; all of them are kept.
        weights: where `isgseg-train` took the initial weights from: None, `coco` or a file.
        optimizer: `sgd`, `muon` or `adamw`; see `build_optimizer`, as the next three.
        lr: learning rate.
        momentum: see there.
        weight_decay: see there.
        schedule: `step` multiplies the rate by `lr_gamma` every `lr_step_epochs` epochs; `cosine`
            lets it fall to zero over the whole training.
        lr_step_epochs: see `schedule`.
        lr_gamma: see `schedule`.
        warmup_steps: steps over which the rate rises from a hundredth.
        seed: decides, with the step, what the network draws at random.
        operating_point: what each validation tunes the thresholds of prediction for; see
            `best_point`. None leaves both at .5.
        tta: see `set_tta`.
        method: the module's own, one of `isgseg.models.settings.METHODS`: the configuration says it
            too, for the names of files.
        metadata: `normalization`, `voxel_size` (nm) and `z_context` of the training data, which
            prediction needs; see `TrainingMetadata`.
        thresholds: what a validation has found. Each validation replaces them; a checkpoint holds
            them beside the weights, not among the hyper-parameters.

    Attributes:
        name: of the method; a checkpoint says it.
        settings: what `network` is checked against.
        network: the network itself.

    Raises:
        InputError: a setting is out of range, or of another method.
    """

    name: ClassVar[str]
    settings: ClassVar[type[BaseModel]]
    network: Any

    def __init__(
        self,
        network: dict[str, Any],
        weights: str | None = None,
        optimizer: str = "sgd",
        lr: float = 0.005,
        momentum: float = 0.9,
        weight_decay: float = 0.0005,
        schedule: str = "step",
        lr_step_epochs: int = 8,
        lr_gamma: float = 0.1,
        warmup_steps: int = 100,
        seed: int = 0,
        operating_point: str | None = "f1",
        tta: int = 1,
        method: str | None = None,
        metadata: dict[str, Any] | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        super().__init__()
        require_method(method or self.name, self.name, "model.method")
        self.check_start(network, weights)
        # All settings, so that a checkpoint does not hang on the defaults of this version.
        network = check(self.settings, network, "model.network").model_dump()
        if metadata is not None:
            check(TrainingMetadata, metadata, "model.metadata")
        self.save_hyperparameters(ignore=["thresholds", "method"])
        self.save_hyperparameters({"method": self.name})
        check(TrainingSettings, {key: self.hparams[key] for key in TRAINING_KEYS}, "model")
        self.network = self.build(network)
        self.score_with(thresholds)
        self.set_tta(tta)
        self._bad_steps, self._learnt = 0, False

    def set_tta(self, tta: int | None) -> None:
        """In how many ways evaluation looks at an image, of `isgseg.models.tta.SYMMETRIES`.

        Args:
            tta: 1, 2, 4 or 8; the time grows with them. None: as it was trained to.

        Raises:
            ValueError: another number.
        """
        slices = bool((self.hparams["metadata"] or {}).get("z_context"))
        count = self.hparams["tta"] if tta is None else tta
        self.network.symmetries = choose_symmetries(count, slices)
        if count != self.hparams["tta"] and self.thresholds is not None:
            log.warning(
                "The checkpoint's thresholds were tuned with tta=%d, not %d; isgseg-tune finds "
                "those that suit",
                self.hparams["tta"],
                count,
            )

    def check_start(self, network: dict[str, Any], weights: str | None) -> None:
        """Refuses networks that cannot start from such weights; see the class for both.

        Raises:
            InputError: they do not go together.
        """

    @abstractmethod
    def build(self, network: dict[str, Any]) -> nn.Module:
        """The network of checked settings, with random weights."""

    @abstractmethod
    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """What training makes small: the loss is their sum; each is logged by its name.

        Args:
            images: (C, H, W) float32 in [0, 1].
            targets: of each image.
        """

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes what the network samples depend on the place in training alone.

        So a resumed run agrees, and so do several processes with one that accumulates as many
        batches.
        """
        together = self.trainer.accumulate_grad_batches
        number = self.global_step * together + batch_idx % together
        number = number * self.trainer.world_size + self.global_rank
        torch.manual_seed(1_000_003 * self.hparams["seed"] + number)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The sum of the losses; what is logged is the mean of all processes.

        Where it is not finite in one of them, all leave the batch out: None in one process. Several
        must take the gradient together, of a loss that has none.

        Raises:
            InputError: too many steps in a row were skipped.
        """
        images, targets = batch
        losses = self.losses(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        known = torch.stack([*losses.values(), loss]).detach()
        mean = known
        if self._trainer is not None:  # there is none where a step is taken by hand
            mean = self.trainer.strategy.reduce(known, reduce_op="mean")
        names = [*losses, "loss"]
        self.log_dict(
            {f"train/{name}": value for name, value in zip(names, mean, strict=True)},
            batch_size=len(images),
        )
        if torch.isfinite(mean[-1]):
            self._bad_steps, self._learnt = 0, True
            return loss
        self._bad_steps += 1
        if self._bad_steps >= MAX_BAD_STEPS:
            raise InputError(
                f"the loss was not finite in {MAX_BAD_STEPS} steps one after the other; lower "
                "model.lr, raise model.warmup_steps, or set trainer.precision=32-true"
            )
        log.warning(
            "Step %d is left out: its loss is not finite; %d norm layers begin anew",
            self.global_step,
            forget_overflow(self.network),
        )
        if self._trainer is None or self.trainer.world_size == 1:
            return None
        return torch.stack([p.flatten()[0] for p in self.parameters() if p.requires_grad]).sum() * 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Logs the norm of the gradient before it is clipped.

        A step of which every batch was left out changes nothing: it is without gradients.
        """
        if not self._learnt:
            self.zero_grad()
        self._learnt = False
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation; a network that has diverged is not scored, nor kept.

        Raises:
            InputError: weights are NaN or infinite.
        """
        require_finite_weights(self.network, self.hparams["lr"])
        super().on_validation_epoch_start()

    def on_train_epoch_end(self) -> None:
        """An epoch without validation is kept likewise.

        Raises:
            InputError: weights are NaN or infinite.
        """
        require_finite_weights(self.network, self.hparams["lr"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the thresholds, and the weights under torchvision's own names, for others' use.

        The tensors are the same, so that the file grows by their names only.
        """
        checkpoint["thresholds"] = None if self.thresholds is None else self.thresholds._asdict()
        checkpoint["model"] = {
            name.removeprefix("network."): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith("network.")
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run goes on with the thresholds that belong to the weights."""
        kept = migrate(checkpoint).get("thresholds")
        self.thresholds = None if kept is None else check(Thresholds, kept, "thresholds")

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """The optimizer, whose rate changes with every step."""
        steps = int(self.trainer.estimated_stepping_batches)
        epochs = max(1, self.trainer.max_epochs or 1)
        return optimization(self.parameters(), self.hparams, steps, epochs)
