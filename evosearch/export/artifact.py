"""A compact network on disk: plan (JSON), weights (safetensors), card (JSON); no pickle."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from evosearch import calling
from evosearch.errors import InputError
from evosearch.export import rebuild as rebuild_module
from evosearch.export.card import CARD, CARD_TEXT, PLAN, card_markdown
from evosearch.export.checking import file_hash
from evosearch.export.rebuild import CHECK, Implanted, implant
from evosearch.export.reloading import verify_reload
from evosearch.files import write_json, write_text, writing
from evosearch.models.copying import copied
from evosearch.models.weights import save_weights
from evosearch.space.mask import Mask
from evosearch.surgery import cut_attention

_logger = logging.getLogger(__name__)

FORMAT, OLDER = 3, (1, 2)
"""Format 2 has no outputs to compare with, and format 1 no buffers either that a state dict leaves
out; both are still read."""
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A compact model on disk.

    Attributes:
        plan: how the original model becomes the compact one: `model` (the space's section),
            `modules` (attributes that differ, by module), `keep` and `sizes` (the mask), and
            where there are any, `implants` (outputs that 1x1 kernels make, by module).
        card: what the network is and what was measured on it.
        folder: where it lies.
    """

    plan: Mapping[str, Any]
    card: Mapping[str, Any]
    folder: Path

    def __repr__(self) -> str:
        return f"Artifact({self.folder}: {self.card.get('plan', 'no plan named')})"

    @classmethod
    def save(
        cls,
        folder: Path,
        *,
        network: nn.Module,
        base: nn.Module,
        mask: Mask,
        model_section: Mapping[str, Any],
        card: Mapping[str, Any],
        space_folder: Path = Path(),
    ) -> "Artifact":
        """Writes a compact network; the folder appears whole and checked, or not at all.

        Checked: a fresh process builds the model anew, loads what was written, and gives the
        outputs of the network. They are kept, and compared whenever it is loaded.

        Args:
            folder: replaced where it exists, once the new one is whole.
            network: the compact network.
            base: the network that it came from, whose constructor rebuilds it.
            mask: the channels that it keeps.
            model_section: the space's `[model]`.
            card: what was measured.
            space_folder: where the space file lies, and a builder beside it.

        Raises:
            StorageError: it cannot be written.
            EvosearchError: what was written is not the network; nothing is left behind.
        """
        plan = {
            "format": FORMAT,
            "model": dict(model_section),
            "modules": changed_attributes(base, network),
            **_implants_in(network),
            "keep": mask.to_json(),
            "sizes": {name: bits.size for name, bits in mask.items()},
        }
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with writing(folder):
                partial.mkdir(parents=True)
                write_json(partial / PLAN, plan)
                save_weights(network, partial / WEIGHTS)
                card = {**card, "files": {WEIGHTS: file_json(partial / WEIGHTS)}}
                write_card(partial, card)
                rebuild_module.write_outputs(network, partial)
                verify_reload(partial, space_folder)
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return cls(plan=plan, card=card, folder=folder)

    @classmethod
    def open(cls, folder: Path) -> "Artifact":
        """Opens an artifact without loading its weights.

        Raises:
            InputError: the folder holds none, one of another version, or one that is not
                whole in itself: with links out of it, or a plan of more than sizes.
        """
        for name in (PLAN, CARD, WEIGHTS, CHECK):
            if (folder / name).is_symlink():
                raise InputError(f"{folder / name}: a link out of its folder; copy the file here")
        try:
            plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(
                f"{folder}: not an artifact (no readable {PLAN} and {CARD})"
            ) from error
        except ValueError as error:
            raise InputError(f"{folder}: malformed {PLAN} or {CARD}: {error}") from error
        if not isinstance(plan, dict) or plan.get("format") not in (*OLDER, FORMAT):
            formats = f"{', '.join(map(str, OLDER))} and {FORMAT}"
            raise InputError(f"{folder / PLAN}: this version reads artifact formats {formats}")
        if not isinstance(card, dict):
            raise InputError(f"{folder / CARD}: malformed: expected an object")
        _require_sizes(folder / PLAN, plan.get("modules"))
        _require_places(folder / PLAN, plan.get("implants", {}))
        if plan["format"] == FORMAT and not (folder / CHECK).is_file():
            raise InputError(f"{folder}: not whole: {CHECK} is missing; copy the whole folder")
        return cls(plan=plan, card=card, folder=folder)

    def load(self, build_model: Callable[[], nn.Module]) -> nn.Module:
        """Returns the compact network, in eval mode.

        Args:
            build_model: makes the original, unpruned model; its weights do not matter.

        Raises:
            InputError: the model is not the one that the artifact was made from: it has other
                modules or tensors, or computes something else with the artifact's weights.
        """
        if self.plan.get("format") in OLDER:
            _logger.warning(
                "%s: of an earlier version, without outputs to compare with: nothing tells whether"
                " its builder still makes the network that was measured",
                self.folder,
            )
        try:
            return rebuild_module.rebuild(build_model(), self.folder)
        except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
            raise InputError(f"{self.folder}: cannot be loaded: {error}") from error

    def export(self, target: Path) -> None:
        """Copies plan, weights, card and a loader that needs torch and safetensors only.

        Raises:
            InputError: the target exists.
        """
        if target.exists():
            raise InputError(f"{target}: exists already; name a new folder")
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in (PLAN, WEIGHTS, CHECK):
            if (self.folder / name).is_file():  # earlier formats have no outputs
                shutil.copyfile(self.folder / name, partial / name)
        write_card(partial, self.card)
        shutil.copyfile(rebuild_module.__file__, partial / "load.py")
        shutil.copyfile(calling.__file__, partial / "calling.py")
        shutil.copyfile(cut_attention.__file__, partial / "cut_attention.py")
        partial.rename(target)


def file_json(path: Path) -> dict[str, Any]:
    """Returns the size and the hash of a file, as a card has them."""
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Writes a card into a folder, for programs (JSON) and for people (Markdown)."""
    write_json(folder / CARD, card)
    write_text(folder / CARD_TEXT, card_markdown(card))


def _require_sizes(path: Path, modules: Any) -> None:
    """Checks that a plan sets nothing in a model but sizes.

    Raises:
        InputError: it sets something else; names the module.
    """
    if not isinstance(modules, dict) or not all(isinstance(v, dict) for v in modules.values()):
        raise InputError(f"{path}: malformed: expected modules, each with its sizes")
    for name, attributes in modules.items():
        for attribute, value in attributes.items():
            values = value if isinstance(value, list) else [value]
            if attribute.startswith("_") or not all(type(item) is int for item in values):
                raise InputError(
                    f"{path}: module {name!r}: {attribute} = {value!r} is no size; expected whole"
                    " numbers"
                )


def _require_places(path: Path, implants: Any) -> None:
    """Checks that what a plan says of implants is outputs of modules.

    Raises:
        InputError: it is something else.
    """
    lists = list(implants.values()) if isinstance(implants, dict) else [None]
    if not all(isinstance(own, list) and all(type(p) is int for p in own) for own in lists):
        raise InputError(f"{path}: malformed: expected implants as modules with their outputs")


def changed_attributes(base: nn.Module, network: nn.Module) -> dict[str, dict[str, Any]]:
    """Returns the sizes that differ between a model's modules and its compact network's."""
    implants = _implants_in(network)
    if implants:
        base = copied(base)
        implant(base, implants["implants"])
    originals = dict(base.named_modules())
    changes: dict[str, dict[str, Any]] = {}
    for name, module in network.named_modules():
        before = vars(originals[name])
        differing = {
            attribute: value
            for attribute, value in vars(module).items()
            if isinstance(value, int | tuple)
            and not isinstance(value, bool)
            and before.get(attribute) != value
        }
        if differing:
            changes[name] = differing
    return changes


def _implants_in(network: nn.Module) -> dict[str, dict[str, list[int]]]:
    """Returns what a plan says of a network's implants; of one without any, nothing."""
    found = {n: m.places for n, m in network.named_modules() if isinstance(m, Implanted)}
    return {"implants": found} if found else {}
