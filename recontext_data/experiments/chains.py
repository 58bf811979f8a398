"""Chains of models: each arm and seed has its own, and a round of it is sampled from that chain's model of the round before.

    round 1   the recipe's own run: pools of the base policy, shared by all arms      runs/<recipe>/<fingerprint>/
    round r   a run per chain, whose policy is the chain's model of round r-1         runs/<recipe>/<another fingerprint>/

A run's fingerprint holds the weights that it was sampled from: runs of two chains are one folder only where their models are
the same, byte for byte, and then what they sample is the same too.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.config.loading import Loaded
from recontext_data.contexts.arms import Arm
from recontext_data.evaluation.models import trained_policy
from recontext_data.store.files import writing
from recontext_data.store.run_folder import RunFolder
from recontext_data.training.base import Base, find_base
from recontext_data.training.jobs import job_of
from recontext_data.training.models import TrainedModel, read_record, trained_model
from recontext_data.training.preparing import TrainingJob

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen


@dataclass(frozen=True, kw_only=True)
class Chain:
    """One arm and one seed."""

    arm: Arm
    name: str
    """The arm's folder."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Link:
    """What a round made of a chain."""

    chain: Chain
    run: Path
    """The run that was built."""
    manifest: Mapping[str, Any]
    job: TrainingJob
    """The training on it."""

    def model(self) -> TrainedModel:
        """The model, which must be finished."""
        facts = read_record(self.job.target)
        assert facts is not None, self.job.target
        return trained_model(self.job.target, facts)


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds what the chains train on."""

    loaded: Loaded
    output: Path
    command: str
    screen: "Screen"
    models: str

    def built(self, loaded: Loaded) -> tuple[RunFolder, Mapping[str, Any]]:
        """A run and its manifest: built now, unless it is there."""
        from recontext_data.pipeline.build import build
        from recontext_data.pipeline.preparation import prepared

        job = prepared(loaded.name, loaded.recipe, output=self.output)
        run = RunFolder(self.output, recipe=loaded.name, fingerprint=job.fingerprint)
        facts = run.manifest()
        if facts is not None:
            return run, facts
        return build(job, output=self.output, screen=self.screen, command=self.command)

    def link(self, chain: Chain, before: Link | None, first: tuple[RunFolder, Mapping[str, Any]]) -> Link:
        """The next round of a chain: built, not yet trained. `first`: the run of round 1, which all chains share."""
        run, manifest = first if before is None else self.built(self._sampled_from(before))
        base = find_base(self.loaded.recipe) if before is None else self._base(before)
        job = job_of(self.loaded, run.path, manifest, arm=chain.name, seed=chain.seed, base=base, models=self.models)
        return Link(chain=chain, run=run.path, manifest=manifest, job=job)

    def policy_after(self, link: Link) -> Any:
        """The config of the policy that a round made."""
        model = link.model()
        if model.is_adapter and self.loaded.recipe.rounds.start == "continue":
            # The adapter's base is itself a model of this chain; as one model it is what the next round starts from, too.
            model = replace(model, path=self._merged(link, model), is_adapter=False)
        return trained_policy(self.loaded.recipe.policy, model)

    def _sampled_from(self, before: Link) -> Loaded:
        """The recipe of one arm alone, sampled from the chain's last model."""
        changes = {"arms": [before.chain.arm], "baselines": "none", "policy": self.policy_after(before)}
        return replace(self.loaded, recipe=self.loaded.recipe.model_copy(update=changes))

    def _base(self, before: Link) -> Base:
        recipe = self.loaded.recipe
        if recipe.rounds.start == "base":
            return find_base(recipe)
        model = before.model()
        path = self._merged(before, model) if model.is_adapter else model.path
        training = recipe.training.model_copy(update={"base": str(path)})
        return find_base(recipe.model_copy(update={"training": training}))

    def _merged(self, link: Link, model: TrainedModel) -> Path:
        """An adapter and its base as one folder beside it, which is there as a whole or not at all."""
        from recontext_data.training.adapters import merge
        from recontext_data.training.libraries import quiet

        target = model.path.with_name(f"merged-{model.path.name}")
        if not target.is_dir():
            staging = target.with_name(f".{target.name}.tmp")
            shutil.rmtree(staging, ignore_errors=True)
            with writing(target), quiet():
                staging.mkdir()
                merge(model, staging, base=link.job.base)
                staging.rename(target)
        return target
