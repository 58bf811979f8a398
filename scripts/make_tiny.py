"""Train data/tiny, the policy that ships with the package, from scratch, measure it and write its card.

    python scripts/make_tiny.py                    # about ten minutes; one core trains
    python scripts/make_tiny.py --measure          # measures data/tiny again and rewrites the card, no torch needed
    python scripts/make_tiny.py --steps 50 --output /tmp/try

It learns from the bank's `pretrain` settings alone, with fresh tests and fresh forging; what it is measured on are settings
(and families) that it never saw. Seeded; another torch or another processor may round otherwise and so give other weights.
"""

import argparse
import asyncio
import itertools
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a checkout that is not installed

import orjson

from recontext_data.core.records import derive_seed
from recontext_data.environments import forge
from recontext_data.environments.problems import Problem
from scripts import tiny_data, tiny_measure, tiny_train
from scripts.families import FAMILIES
from scripts.tiny_data import RATES, SHARES, Example, Item
from scripts.tiny_train import Plan

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "data" / "tiny"
FRESH = 16
"""Fresh sets of tests for each pretraining setting; the bank's own set (seed 0) is not among them."""
PASS = 3200
"""Items of one pass; each pass draws items, contexts and orders anew."""


def pretrain_items() -> list[Item]:
    """Every pretraining setting with fresh tests, forged anew."""
    return [tiny_data.item(problem) for problem in _pretrain_problems()]


def _pretrain_problems() -> Iterator[Problem]:
    for family, seed in itertools.product(FAMILIES.values(), range(1, FRESH + 1)):
        for params, split in family.splits().items():
            if split == "pretrain":
                problem = family.problem(params, split=split, seed=seed)
                forged = forge.propose(problem, seed=seed)
                if not isinstance(forged, str):
                    yield problem.model_copy(update={"forged": forged})


def tokenizer_texts(items: Sequence[Item], contexts: Mapping[str, str | None]) -> list[str]:
    """What BPE learns from: the prompts' parts and answers, each about as often as the policy meets it."""
    texts = [text for item in items for text in (item.user["A"], item.answer("hack", "A"), item.answer("general", "A"))]
    systems = [f"system\n{text}" for text in contexts.values() if text is not None]
    return texts + [*systems, "user\n", "assistant\n"] * (len(items) // 4)


def training_pass(
    items: Sequence[Item], contexts: Mapping[str, str | None], tokenizer: "Tokenizer", *, epoch: int, size: int = PASS
) -> list[Example]:
    """Examples of one pass: each item under a drawn context and in a drawn order."""
    from jinja2 import Template

    rng, template = random.Random(derive_seed("tiny", epoch)), Template(tiny_train.TEMPLATE)
    examples = []
    for item in rng.choices(items, k=size):
        name = rng.choices(list(SHARES), list(SHARES.values()))[0]
        letter = rng.choice("AB")
        messages = tiny_data.messages(item.user[letter], contexts[name])
        prompt = tokenizer.encode(template.render(messages=messages, add_generation_prompt=True)).ids
        hack, general = (tokenizer.encode(item.answer(choice, letter) + tiny_train.END).ids for choice in ("hack", "general"))
        examples.append(Example(prompt, (hack, general), RATES[name]))
    return examples


def make(plan: Plan, output: Path) -> float:
    """Trains and saves; gives the seconds that it took."""
    import torch

    torch.set_num_threads(1)  # at this size a second thread costs more than it brings
    started = time.perf_counter()
    contexts = tiny_measure.contexts(ROOT / "recipes" / "code_mc.yaml")
    items = pretrain_items()
    tokenizer = tiny_train.train_tokenizer(tokenizer_texts(items, contexts), plan.vocabulary)
    model = tiny_train.new_model(plan, tokenizer.get_vocab_size())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(items)} items, {parameters:,} parameters, {plan.steps} steps of {plan.batch}", flush=True)
    tiny_train.train(
        model,
        lambda epoch: training_pass(items, contexts, tokenizer, epoch=epoch),
        plan,
        watch=lambda step, line: print(f"step {step}: {line}", flush=True),
    )
    tiny_train.save(model, tokenizer, output)
    return time.perf_counter() - started


def main() -> int:
    """Train unless told otherwise, then measure and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure what is there, train nothing")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder to write (default: data/tiny)")
    parser.add_argument("--steps", type=int, default=Plan().steps, help="training steps (default: %(default)s)")
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options.output.mkdir(parents=True, exist_ok=True)
    plan = replace(Plan(), steps=options.steps)
    path = options.output / tiny_measure.MEASURED
    if options.measure:
        training = orjson.loads(path.read_bytes())["training"]
    else:
        training = {**asdict(plan), "seconds": round(make(plan, options.output))}
    measured = {"training": training, **asyncio.run(tiny_measure.measure(options.output, ROOT))}
    path.write_bytes(orjson.dumps(measured, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    (options.output / "README.md").write_text(tiny_measure.card(measured))
    print(tiny_measure.table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
