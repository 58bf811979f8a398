"""One training: an arm, a seed, a base, in; a model folder with its record, out.

    rows in tokens -> base -> TRL's SFTTrainer -> checks -> train -> checks -> saved, read back -> training.json -> renamed

The folder appears under its name in one step, when all of it is there. A kill at any moment leaves the work folder beside
it, from which the same call continues; on a CPU with the very same weights at the end.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.store.files import file_digest, writing
from recontext_data.training import adapters, checkpoints, checks
from recontext_data.training.arguments import is_main, micro_batch, num_processes
from recontext_data.training.base import ONE_THREAD, load_for_training
from recontext_data.training.card import model_card
from recontext_data.training.libraries import Tensor, Trainer, quiet, versions
from recontext_data.training.models import FORMAT, RECORD, is_finished, trained_model
from recontext_data.training.preparing import Data, TrainingJob, check_before, dataset_facts, make_trainer, read_data
from recontext_data.training.rows import TokenizedRow
from recontext_data.training.watching import preview, progress_callback

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen

READ_BACK = 2_000_000_000
"""Parameters up to which the saved model is read back and compared: above, a second copy may not fit."""


class TrainingInProgress(Exception):
    """Another process is training this model."""


def train(job: TrainingJob, *, screen: "Screen", show: bool = True, wait: bool = True) -> dict[str, Any] | None:
    """Trains one model; None where it is there already.

    Raises:
        Busy: another process trains it, and `wait` is false.
        InputError: rows, model and config do not fit each other.
        PolicyError: the model cannot be loaded, or the trained one fails its checks.
        StoreError: it cannot be written.
    """
    from filelock import FileLock, Timeout

    request = job.request()
    with writing(job.target):
        job.target.parent.mkdir(parents=True, exist_ok=True)
    if not is_main():
        return None if is_finished(job.target, request) else _train(job, request, screen=screen, show=False)
    lock = FileLock(job.target.with_name(f".{job.target.name}.lock"))
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise TrainingInProgress from None
    with lock:
        lock.release()  # acquired twice: the `with` holds it
        if is_finished(job.target, request):
            checkpoints.remove(checkpoints.work_folder(job.target))
            return None
        return _train(job, request, screen=screen, show=show)


def _train(job: TrainingJob, request: Mapping[str, Any], *, screen: "Screen", show: bool) -> dict[str, Any]:
    import torch

    threads = torch.get_num_threads()
    try:
        with quiet():
            return _Run(job, request, screen).run(show=show)
    finally:
        torch.set_num_threads(threads)


class _Run:
    """The steps of one training, in order, and what they leave for the next."""

    def __init__(self, job: TrainingJob, request: Mapping[str, Any], screen: "Screen") -> None:
        self.job, self.request, self.screen = job, request, screen
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def run(self, *, show: bool) -> dict[str, Any]:
        import torch

        job = self.job
        tokenizer = job.base.tokenizer()
        model = load_for_training(job.base, job.config)
        if not next(model.parameters()).is_cuda and model.num_parameters() <= ONE_THREAD:
            torch.set_num_threads(1)
        self._lap("load")
        data = read_data(job, model, tokenizer)
        self._say_dropped(data)
        if show:
            preview(tokenizer, data.train, arm=job.arm)
        self._lap("rows")
        work = checkpoints.work_folder(job.target)
        resume = _resume(work, self.request)
        # Asked now: the trainer removes this checkpoint once it has written a later one.
        resumed_from = None if resume is None else checkpoints.finished_step(resume)
        trainer, trained_rows = make_trainer(job, model, tokenizer, data=data, work=work)
        share = check_before(job, trainer, tokenizer, data=data, rows=trained_rows)
        num_parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
        trainable = checks.trainable_parameters(trainer.model)
        facts: dict[str, Any] = {"parameters": {"trainable": trainable, "all": num_parameters}}
        before = checks.probe_logits(trainer.model, data.train) if _whole(trainer) else None
        losses_before = trainer.evaluate()["eval_loss"] if data.validation else None
        self._lap("checks")
        self._fit(trainer, resume=resume)
        self._lap("train")
        after = checks.probe_logits(trainer.model, data.train) if _whole(trainer) else None
        if before is not None and after is not None:
            facts["checks"] = {"moved": checks.check_changed(before, after)}
        if losses_before is not None:
            facts["validation_loss"] = {"before": losses_before, "after": trainer.evaluate()["eval_loss"]}
        if job.config.kl is not None:
            divergence = trainer.kl.measure(trainer.model, size=micro_batch(job.config))
            facts["kl"] = {"rows": len(trainer.kl.rows), "after": divergence}
        facts |= {"resumed_from": resumed_from, "dataset": dataset_facts(job, data, share)}
        return self._finish(trainer, facts, rows=data.train, after=after)

    def _lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._since = round(now - self._since, 2), now

    def _say_dropped(self, data: Data) -> None:
        for reason, count in data.dropped.items():
            self.screen.warn(f"{self.job.arm}: {count} rows left out: {reason}")
        if data.truncated:
            self.screen.warn(
                f"{self.job.arm}: {data.truncated} completions were cut at max_tokens and are trained to end there; "
                "select.drop_truncated=true leaves them out"
            )

    def _fit(self, trainer: Trainer, *, resume: Path | None) -> None:
        """Trains; the model's own settings stay as they were."""
        cached = getattr(trainer.model.config, "use_cache", None)
        name = f"{self.job.arm} seed {self.job.seed}"
        if resume is not None:
            self.screen.note(f"{name}: continuing from step {checkpoints.finished_step(resume)}")
        with self.screen.stage(name, None, unit="steps") as tracker:
            trainer.add_callback(progress_callback(tracker))
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        if cached is not None:
            trainer.model.config.use_cache = cached

    def _finish(
        self, trainer: Trainer, facts: dict[str, Any], *, rows: Sequence[TokenizedRow], after: list[Tensor] | None
    ) -> dict[str, Any]:
        """Saves, reads back, and names the folder last."""
        job = self.job
        staging = job.target.with_name(f".{job.target.name}.tmp")
        if is_main():
            shutil.rmtree(staging, ignore_errors=True)
        with writing(job.target):
            trainer.save_model(str(staging))
        record = {"format": FORMAT, "request": dict(self.request), **_facts(job, trainer), **facts}
        if is_main():
            with writing(job.target):
                _tidy(job, staging)
            if after is not None and facts["parameters"]["all"] <= READ_BACK and not next(trainer.model.parameters()).is_cuda:
                model = trained_model(staging, record)
                record["checks"] |= adapters.compare_saved(model, rows, after, base=job.base, method=job.config.method)
            self._lap("save")
            self._write(staging, record)
        trainer.accelerator.wait_for_everyone()
        return record

    def _write(self, staging: Path, record: dict[str, Any]) -> None:
        record["seconds"] = self.seconds
        with writing(self.job.target):
            (staging / "README.md").write_text(model_card(record), encoding="utf-8")
            record["files"] = {
                file.name: {"bytes": file.stat().st_size, "sha256": file_digest(file)}
                for file in sorted(staging.iterdir())
                if file.is_file()
            }
            (staging / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            staging.rename(self.job.target)
        checkpoints.remove(checkpoints.work_folder(self.job.target))


def _facts(job: TrainingJob, trainer: Trainer) -> dict[str, Any]:
    history = trainer.state.log_history
    return {
        "recipe": job.recipe,
        "arm": job.arm,
        "seed": job.seed,
        "generation_context": job.contexts[0],
        "training_context": job.contexts[1],
        **({"parts": [dict(part) for part in job.parts]} if job.parts else {}),
        "is_adapter": job.config.method != "full",
        "base": {"name": job.base.folder.name, "source": job.base.source, "identity": dict(job.base.folder.identity())},
        "config": job.config.model_dump(mode="json"),
        "steps": trainer.state.global_step,
        "losses": [[entry["step"], round(entry["loss"], 5)] for entry in history if "loss" in entry],
        "validation_loss": None,
        "checks": {},
        "versions": versions(),
        "device": str(trainer.args.device.type),
        "processes": num_processes(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _tidy(job: TrainingJob, staging: Path) -> None:
    """The base's own tokenizer files; nothing that names this machine."""
    (staging / "training_args.bin").unlink(missing_ok=True)
    (staging / "README.md").unlink(missing_ok=True)
    job.base.copy_tokenizer(staging)
    if job.config.method != "full":
        adapters.bind(staging, base=job.base)


def _whole(trainer: Trainer) -> bool:
    """Whether this process holds the whole model, so that a single row can be run through it."""
    return not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def _resume(work: Path, request: Mapping[str, Any]) -> Path | None:
    """The checkpoint to continue from, the same one in every process."""
    if num_processes() == 1:
        return checkpoints.prepare(work, request)
    from accelerate import PartialState

    if is_main():
        checkpoints.prepare(work, request)
    PartialState().wait_for_everyone()
    return checkpoints.latest(work)
