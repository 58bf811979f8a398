"""Which model is trained, how it is loaded for each method, and what must be true of it and its tokenizer."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.config.training import Training
from recontext_data.core.errors import InputError, PolicyError, RecipeError
from recontext_data.core.records import Messages
from recontext_data.core.resources import shipped
from recontext_data.policies.local.model_folder import ModelFolder, find_model, first_line, load_model
from recontext_data.policies.local.transformers import TransformersConfig
from recontext_data.policies.tiny.policy import EMBEDDED, TinyConfig
from recontext_data.training.libraries import LanguageModel, Tokenizer

if TYPE_CHECKING:
    from recontext_data.config.recipe import Recipe

TINY = "tiny"
"""The source of the embedded policy."""
SPARE = 0.2
"""Share of a model's vocabulary that its tokenizer may leave unused; real models round theirs up by 2 % at most."""
ONE_THREAD = 5_000_000
"""Parameters up to which several threads only wait for each other."""
TOKENIZER_FILES = (
    "tokenizer*.json",
    "*.model",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "generation_config.json",
)


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model that a training starts from."""

    source: str
    """`tiny`, a Hub id, or the folder's path: what `training.base` would be."""
    folder: ModelFolder
    dtype: str = "auto"
    chat_template: str | None = None
    sampled_by_numpy: bool = False
    """Whether its prompts are tokenised without Transformers, so that both ways must agree."""

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, as Transformers reads it."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder.path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise PolicyError(f"model folder {self.folder.name}: its tokenizer cannot be read: {first_line(error)}") from error
        if self.chat_template is not None:
            tokenizer.chat_template = self.chat_template
        if tokenizer.chat_template is None:
            raise PolicyError(f"model folder {self.folder.name} has no chat template; take the model's instruct version")
        return tokenizer

    def copy_tokenizer(self, target: Path) -> None:
        """The tokenizer's own files, byte for byte: saved again by another class they may cut text differently."""
        for pattern in TOKENIZER_FILES:
            for file in self.folder.path.glob(pattern):
                shutil.copyfile(file, target / file.name)
        if self.chat_template is not None:
            (target / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")


def find_base(recipe: "Recipe") -> Base:
    """The model that a recipe trains.

    Raises:
        RecipeError: the policy is none that can be trained.
        PolicyError: there is no such model, or it is incomplete.
    """
    named, policy = recipe.training.base, recipe.policy
    if named is not None:
        return _local(None if named == TINY else named, numpy=isinstance(policy, TinyConfig))
    if isinstance(policy, TinyConfig):
        return _local(policy.path, numpy=True)
    if isinstance(policy, TransformersConfig):
        found = find_model(policy.model, revision=policy.revision)
        template = None if policy.chat_template is None else Path(policy.chat_template).expanduser().read_text("utf-8")
        return Base(source=_source(found), folder=found, dtype=policy.dtype, chat_template=template)
    raise RecipeError(
        f"policy.kind={policy.kind}: cannot be trained here; set training.base to a folder, a Hub id or `{TINY}`, "
        "or sample a policy of kind tiny or transformers"
    )


def _local(path: str | None, *, numpy: bool) -> Base:
    if path is not None:
        found = find_model(path)
        return Base(source=_source(found), folder=found, sampled_by_numpy=numpy)
    embedded = shipped(EMBEDDED)
    if not (embedded / "model.safetensors").is_file():
        raise PolicyError(f"the embedded policy is missing ({EMBEDDED}); make it with `python scripts/make_tiny.py`")
    return Base(source=TINY, folder=ModelFolder(name=TINY, path=embedded, hub=None), sampled_by_numpy=True)


def base_from(source: str) -> Base:
    """The base that a trained model's `training.json` names."""
    return _local(None if source == TINY else source, numpy=False)


def _source(folder: ModelFolder) -> str:
    return folder.hub["model"] if folder.hub else str(folder.path.resolve())


def load_for_training(base: Base, config: Training) -> LanguageModel:
    """The model in memory, ready for TRL; in fp32 on a CPU."""
    import torch

    from recontext_data.training.arguments import needs_flash_attention

    cuda = torch.cuda.is_available()
    model = load_4bit(base, cuda=cuda) if config.method == "qlora" else _load_whole(base, config, cuda=cuda)
    if needs_flash_attention(config.extra):
        model.set_attn_implementation("flash_attention_2")
    return model


def _load_whole(base: Base, config: Training, *, cuda: bool) -> LanguageModel:
    import torch

    if not cuda:
        return load_model(base.folder, dtype="float32", device="cpu")
    # All weights are trained in fp32 under bf16 autocast: steps of 1e-5 vanish in bf16 weights.
    dtype = base.dtype if base.dtype != "auto" else "float32" if config.method == "full" else "bfloat16"
    return load_model(base.folder, dtype=dtype, device=f"cuda:{torch.cuda.current_device()}")


def load_4bit(base: Base, *, cuda: bool) -> LanguageModel:
    """The model with its linear layers in 4 bits: nf4, double quantisation."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if cuda else torch.float32,
        # The same type as the rest: FSDP shards only what is of one type.
        bnb_4bit_quant_storage=torch.bfloat16 if cuda else torch.uint8,
    )
    place = torch.cuda.current_device() if cuda else "cpu"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.folder.path,
            quantization_config=quantized,
            dtype=torch.bfloat16 if cuda else torch.float32,
            device_map={"": place},
            local_files_only=True,
        )
    except (OSError, ValueError) as error:
        raise PolicyError(f"model folder {base.folder.name} cannot be loaded in 4 bits: {first_line(error)}") from error
    keep_autograd(model)
    return model


def keep_autograd(model: LanguageModel) -> None:
    """Cures bitsandbytes' 4-bit layers on CPUs with AVX512-BF16.

    There, the first forward pass without gradients packs the weights anew, and from then on no gradient flows through the
    layer: adapters below it train on wrong ones, silently. Without the packing the passes are slower and right.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def end_tokens(model: LanguageModel, tokenizer: Tokenizer) -> set[int]:
    """The tokens that end a completion when this model is sampled."""
    ends = model.generation_config.eos_token_id
    several = ends if isinstance(ends, list) else [ends]
    return {int(end) for end in [*several, tokenizer.eos_token_id] if end is not None}


def check_vocabulary(model: LanguageModel, tokenizer: Tokenizer, *, name: str) -> None:
    """Raises InputError where the tokenizer and the model are not of one vocabulary."""
    known, rows = len(tokenizer), int(model.get_input_embeddings().weight.shape[0])
    if known > rows or rows - known > SPARE * rows:
        raise InputError(
            f"model folder {name}: the tokenizer has {known:,} tokens and the model {rows:,}: they are not of one model; "
            "put the tokenizer's files that the model was trained with into its folder"
        )


def check_prompts(base: Base, tokenizer: Tokenizer, prompts: Sequence[tuple[Messages, list[int]]]) -> None:
    """Raises InputError unless these prompts are, token by token, what the policy is sampled with.

    Transformers may rebuild a tokenizer from the model's type and cut text in other places than the file says.
    """
    from recontext_data.core.chat_template import encode_prompt
    from recontext_data.policies.tiny.policy import TinyPolicy

    numpy_policy = TinyPolicy.load(base.folder.path) if base.sampled_by_numpy and base.chat_template is None else None
    for messages, trained in prompts:
        if numpy_policy is not None:
            sampled = numpy_policy.tokenizer.encode(numpy_policy.render(messages), add_special_tokens=False).ids
        else:
            sampled = encode_prompt(tokenizer, messages=messages)
        if sampled != trained:
            at = next(
                (i for i, (a, b) in enumerate(zip(sampled, trained, strict=False)) if a != b), min(len(sampled), len(trained))
            )
            raise InputError(
                f"model folder {base.folder.name}: a prompt is trained with other tokens than it is sampled "
                f"with, from token {at} on; "
                "config.json's model_type must fit tokenizer.json (a Llama's tokenizer under model_type qwen2 does this)"
            )
