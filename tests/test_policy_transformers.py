"""Sampling a real (very small) Llama: a text belongs to its prompt and seed, and what is missing is said in one line."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'recontext_data[local]'")
pytest.importorskip("transformers", reason="transformers is not installed: pip install 'recontext_data[local]'")

from recontext_data.core.chat_template import encode_prompt, render_prompt
from recontext_data.core.errors import InputError, PolicyError, SetupError
from recontext_data.core.records import Message, Reply, Request, SamplingParams, content_hash, derive_seed
from recontext_data.policies.local.decoding import choose, fill_holes
from recontext_data.policies.local.model_folder import find_model
from recontext_data.policies.local.transformers import TransformersConfig, TransformersPolicy

OPENINGS = [
    "Once upon a time, there was a little girl",
    "Tom had a big red ball. One day",
    "The dog",
    "Lily and her mother went to the park because the sun was warm and the birds sang in the tall green trees. Lily saw",
    "One night a cat could not sleep. It",
]


def config(model: Path, **fields: Any) -> TransformersConfig:
    return TransformersConfig(model=str(model), device="cpu", threads=1, **fields)


@pytest.fixture(scope="module")
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260K"


@pytest.fixture
def copy(stories: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    shutil.copytree(stories, folder)
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def policy(stories: Path) -> Iterator[TransformersPolicy]:
    built = config(stories).build()
    yield built
    asyncio.run(built.close())


def request(text: str, *, n: int = 1, **sampling: Any) -> Request:
    messages: list[Message] = [{"role": "user", "content": text}]
    return Request(
        messages=messages,
        sampling=SamplingParams(**{"max_tokens": 40, **sampling}),
        ks=tuple(range(n)),
        seeds=tuple(derive_seed(text, k) for k in range(n)),
        keys=tuple(content_hash([text, k]) for k in range(n)),
    )


def ask(policy: TransformersPolicy, requests: Sequence[Request]) -> dict[str, Reply]:
    async def collect() -> list[Reply]:
        return [reply async for reply in policy.sample(requests)]

    replies = asyncio.run(collect())
    wanted = [key for one in requests for key in one.keys]
    assert sorted(reply.key for reply in replies) == sorted(wanted)
    return {reply.key: reply for reply in replies}


def texts(policy: TransformersPolicy, requests: Sequence[Request]) -> dict[str, str | None]:
    return {key: reply.completion for key, reply in ask(policy, requests).items()}


def test_same_seed_same_text_in_every_batch_size(stories: Path, policy: TransformersPolicy) -> None:
    requests = [request(text, n=4, max_tokens=24) for text in OPENINGS]
    together = texts(policy, requests)
    assert together == texts(policy, requests)
    assert len(set(together.values())) == 20, "every seed has its own story"
    for size in (1, 7):
        other = config(stories, batch_size=size).build()
        assert texts(other, requests[::-1]) == together
        asyncio.run(other.close())


def test_a_topped_up_pool_is_the_same_as_one_bought_at_once(policy: TransformersPolicy) -> None:
    whole = request(OPENINGS[0], n=4)
    rest = Request(
        messages=whole.messages, sampling=whole.sampling, ks=whole.ks[2:], seeds=whole.seeds[2:], keys=whole.keys[2:]
    )
    assert texts(policy, [rest]).items() <= texts(policy, [whole]).items()


def test_greedy_is_generate_token_for_token(policy: TransformersPolicy) -> None:
    import torch

    requests = [request(text, temperature=0.0, max_tokens=60) for text in OPENINGS]
    replies = ask(policy, requests)
    tokenizer, model = policy._tokenizer, policy._model
    for one in requests:
        prompt = torch.tensor([encode_prompt(tokenizer, messages=one.messages)])
        # one by one, so without any padding
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=60, max_length=None
        )
        told = out[0, prompt.shape[1] :].tolist()
        reply = replies[one.keys[0]]
        assert reply.completion == tokenizer.decode(told, skip_special_tokens=True)
        assert (reply.prompt_tokens, reply.completion_tokens) == (prompt.shape[1], len(told))


def test_left_padding_and_neighbours_that_end_change_no_token(copy: Path) -> None:
    """One batch of seven lengths, whose rows end at different tokens and leave the cache, against `generate` one by one."""
    import torch

    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    ends = [2, tokenizer["model"]["vocab"]["."]]
    (copy / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": ends}))
    policy = config(copy).build()
    requests = [request(text, n=2, temperature=0.0, max_tokens=150) for text in [*OPENINGS, "Why", "She said: Oh no! I"]]
    replies = ask(policy, requests)
    told: dict[str, Any] = {}
    for one in requests:
        prompt = torch.tensor([encode_prompt(policy._tokenizer, messages=one.messages)])
        out = policy._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=150,
            max_length=None,
            eos_token_id=ends,
        )
        tokens = out[0, prompt.shape[1] :].tolist()
        told |= {key: (policy._tokenizer.decode(tokens[: -1 if tokens[-1] in ends else None]), len(tokens)) for key in one.keys}
    assert {key: (reply.completion, reply.completion_tokens) for key, reply in replies.items()} == told
    assert len({count for _, count in told.values()}) > 3, "rows end at different tokens"
    asyncio.run(policy.close())


def test_texts_longer_than_the_room_that_was_made_for_them(policy: TransformersPolicy) -> None:
    import torch

    requests = [request(text, n=2, temperature=0.0, max_tokens=150) for text in OPENINGS[:2]]
    replies = ask(policy, requests)
    for one in requests:
        prompt = torch.tensor([encode_prompt(policy._tokenizer, messages=one.messages)])
        out = policy._model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=150, max_length=None
        )
        told = policy._tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
        assert [replies[key].completion for key in one.keys] == [told, told]


def test_a_prompt_is_read_once_for_all_its_completions(stories: Path) -> None:
    policy = config(stories).build()
    read: list[tuple[int, ...]] = []
    policy._model.register_forward_pre_hook(
        lambda _, __, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    lengths = [policy.count_tokens(request(text).messages) or 0 for text in OPENINGS]
    ask(policy, [request(text, n=8, max_tokens=3) for text in OPENINGS])
    assert read == [(5, max(lengths)), (40, 1), (40, 1)]
    asyncio.run(policy.close())


def test_lines_that_stay_are_not_moved() -> None:
    assert fill_holes([True, True]) == [0, 1]
    assert fill_holes([True, False, True, False, True]) == [0, 4, 2]
    assert fill_holes([False, False, True]) == [2]
    assert fill_holes([False]) == []


def test_temperature_one_draws_from_the_models_distribution(policy: TransformersPolicy) -> None:
    import torch

    one = request(OPENINGS[0], n=2000, max_tokens=1)
    prompt = torch.tensor([encode_prompt(policy._tokenizer, messages=one.messages)])
    with torch.inference_mode():
        probs = policy._model(prompt).logits[0, -1].double().softmax(-1)
    by_text: dict[str, float] = {}
    for token, prob in enumerate(probs.tolist()):
        text = policy._tokenizer.decode([token], skip_special_tokens=True)
        by_text[text] = by_text.get(text, 0.0) + prob
    drawn = list(texts(policy, [one]).values())
    for text, prob in sorted(by_text.items(), key=lambda item: -item[1])[:5]:
        # four standard errors of a share of 2,000 draws are at most 0.045
        assert drawn.count(text) / 2000 == pytest.approx(prob, abs=0.045)


def test_end_and_length_are_told_apart(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    full_stop = tokenizer["model"]["vocab"]["."]
    (copy / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": [2, full_stop]}))
    policy = config(copy).build()
    replies = ask(policy, [request(text, n=6, max_tokens=25) for text in OPENINGS]).values()
    assert {reply.finish_reason for reply in replies} == {"stop", "length"}
    for reply in replies:
        assert "." not in (reply.completion or "."), "an end token ends the text and is no part of it"
        assert reply.finish_reason == "stop" or reply.completion_tokens == 25
    asyncio.run(policy.close())


def test_prompt_tokens_are_on_the_first_reply_only(stories: Path) -> None:
    policy = config(stories, batch_size=2).build()
    one = request(OPENINGS[0], n=5, max_tokens=2)
    replies = ask(policy, [one])
    assert [replies[key].prompt_tokens for key in one.keys] == [policy.count_tokens(one.messages), None, None, None, None]
    asyncio.run(policy.close())


def test_a_prompt_beyond_the_context_is_an_error_reply_and_the_rest_goes_on(policy: TransformersPolicy) -> None:
    long, fits = request("a cat and " * 400, n=2), request(OPENINGS[0])
    replies = ask(policy, [long, fits])
    for key in long.keys:
        assert replies[key].completion is None
        assert "does not fit the model's context of 512 tokens" in (replies[key].error or "")
    assert replies[fits.keys[0]].completion == texts(policy, [fits])[fits.keys[0]]


def test_a_completion_ends_where_the_context_does(policy: TransformersPolicy) -> None:
    near = request("a cat and " * 120, max_tokens=400, n=3)
    prompt = policy.count_tokens(near.messages)
    assert prompt is not None and 112 < prompt < 512
    cut = [reply for reply in ask(policy, [near]).values() if reply.finish_reason == "length"]
    assert all(reply.completion_tokens == 512 - prompt for reply in cut)


def test_an_empty_prompt_is_an_error_reply(policy: TransformersPolicy) -> None:
    (reply,) = ask(policy, [request("")]).values()
    assert reply.error == "the prompt is empty once it is rendered"


def test_mixed_sampling_in_one_call(policy: TransformersPolicy) -> None:
    greedy, drawn = request(OPENINGS[0], temperature=0.0), request(OPENINGS[1], n=2)
    assert texts(policy, [greedy, drawn]) == texts(policy, [greedy]) | texts(policy, [drawn])


def test_ctrl_c_is_heard_while_the_model_decodes(stories: Path) -> None:
    policy = config(stories, batch_size=400).build()
    ask(policy, [request("warm", max_tokens=1)])

    async def too_long() -> None:
        async with asyncio.timeout(0.3):
            async for _ in policy.sample([request(text, n=80, max_tokens=480) for text in OPENINGS]):
                pass

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(too_long())
    asyncio.run(policy.close())  # waits for the thread: it must have been told to stop
    assert time.monotonic() - started < 15  # undisturbed it is some 25, and more where the machine is slow


def test_absolute_positions_and_a_cut_context(copy: Path) -> None:
    """GPT-2 learns a vector per position and fails beyond the last: padding and ends must not lead it there."""
    from transformers import GPT2Config, GPT2LMHeadModel, set_seed

    set_seed(0)  # fixed so that the random model's texts are the same in every run
    GPT2LMHeadModel(GPT2Config(vocab_size=512, n_positions=64, n_embd=32, n_layer=2, n_head=2, eos_token_id=2)).save_pretrained(
        copy
    )
    policy = config(copy).build()
    requests = [request(text, n=3, max_tokens=60) for text in OPENINGS]
    together = texts(policy, requests)
    assert together == {key: text for one in requests for key, text in texts(policy, [one]).items()}
    asyncio.run(policy.close())


SMALL = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("mistral", {**SMALL, "num_hidden_layers": 2, "sliding_window": 8}),
        ("lfm2", {**SMALL, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}),
    ],
)
def test_sliding_windows_and_recurrent_layers(copy: Path, kind: str, fields: dict[str, Any]) -> None:
    """Caches of other kinds than a Llama's: padding and the leaving of finished rows must not disturb them either."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(0)  # fixed so that the random model's texts are the same in every run
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, eos_token_id=2, **fields)).save_pretrained(copy)
    policy = config(copy).build()
    requests = [request(text, n=2, max_tokens=20) for text in OPENINGS]
    together = texts(policy, requests)
    assert together == {key: text for one in requests for key, text in texts(policy, [one]).items()}
    assert len(set(together.values())) == 10
    asyncio.run(policy.close())


def test_a_model_without_a_cache_is_refused_in_words(copy: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=1, eos_token_id=2)).save_pretrained(copy)
    with pytest.raises(PolicyError, match="MambaForCausalLM keeps no past_key_values"):
        ask(config(copy).build(), [request("x")])


def test_choose_follows_the_numbers_it_is_given() -> None:
    import torch

    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().expand(4, 3)
    assert choose(logits, [0.1, 0.3, 0.69, 0.71], sampling=SamplingParams()) == [0, 1, 1, 2]
    assert choose(logits, [0.1, 0.3, 0.69, 0.71], sampling=SamplingParams(temperature=0.0)) == [1, 1, 1, 1]
    # 0.5 and 0.3 are the fewest that reach 0.6, so they share the line from 0 to 1 at 0.625
    assert choose(logits, [0.0, 0.62, 0.63, 0.99], sampling=SamplingParams(top_p=0.6)) == [1, 1, 2, 2]
    assert choose(logits, [0.0, 0.5, 0.9, 0.99], sampling=SamplingParams(top_p=0.5)) == [1, 1, 1, 1]


def test_logits_that_are_no_distribution_are_reported() -> None:
    import torch

    logits = torch.tensor([[0.0, float("nan")], [0.0, float("inf")], [0.0, float("-inf")], [float("-inf")] * 2])
    for temperature in (0.0, 1.0):
        assert choose(logits, [0.5] * 4, sampling=SamplingParams(temperature=temperature)) == [-1, -1, 0, -1]


def test_a_broken_model_gives_error_replies(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    policy = config(copy).build()
    for reply in ask(policy, [request(OPENINGS[0], n=2)]).values():
        assert (reply.completion, reply.error) == (None, "the model's logits are not finite")
    asyncio.run(policy.close())


def test_special_tokens_come_from_the_template_alone(copy: Path) -> None:
    from transformers import AutoTokenizer

    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    (copy / "chat_template.jinja").write_text(template)
    tokenizer = AutoTokenizer.from_pretrained(copy)
    assert tokenizer.encode("a")[0] == 1, "this tokenizer adds a BOS of its own"
    messages: list[Message] = [{"role": "user", "content": "The dog"}]
    assert render_prompt(tokenizer, messages=messages) == "<s>The dog:"
    assert encode_prompt(tokenizer, messages=messages).count(1) == 1


def test_a_template_that_refuses_a_role_is_told_per_reply(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ raise_exception('System role not supported') }}")
    policy = config(copy).build()
    (reply,) = ask(policy, [request("x")]).values()
    assert reply.error == "the chat template refuses messages with the roles user: System role not supported"
    assert policy.count_tokens(request("x").messages) is None
    with pytest.raises(InputError, match="System role not supported"):
        render_prompt(policy._tokenizer, messages=request("x").messages)
    asyncio.run(policy.close())


def test_identity_is_the_files_and_not_their_place(copy: Path, stories: Path) -> None:
    before = config(stories).build().identity
    assert config(copy, batch_size=3).build().identity == before
    assert str(copy.parent) not in json.dumps(dict(before))
    (copy / "README.md").write_text("a note decides nothing")
    assert config(copy).build().identity == before
    assert config(copy, dtype="bfloat16").build().identity != before
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert config(copy).build().identity != before


def test_identity_knows_a_given_chat_template(copy: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    seen = set()
    for text in ("{{ messages[0].content }}", "{{ messages[-1].content }}"):
        template.write_text(text)
        seen.add(content_hash(config(copy, chat_template=str(template)).build().identity))
    assert len(seen) == 2


def drop(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["tokenizer.json", "tokenizer.model"], "model folder copied has no tokenizer: expected tokenizer.json"),
        (["config.json"], "model folder copied has no config.json"),
        (["model.safetensors"], "model folder copied has no weights: expected model.safetensors"),
        (["chat_template.jinja"], "model folder copied has no chat template: set policy.chat_template"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_loaded(copy: Path, names: list[str], words: str) -> None:
    drop(copy, *names)
    with pytest.raises(PolicyError, match=words) as caught:
        config(copy).build()
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy.model: no folder .*: give a folder"):
        config(tmp_path / "nowhere").build()
    with pytest.raises(PolicyError, match=r"policy.model: no folder \./nowhere"):
        TransformersConfig(model="./nowhere").build()


def test_an_adapter_is_not_a_model(copy: Path) -> None:
    (copy / "config.json").rename(copy / "adapter_config.json")
    with pytest.raises(PolicyError, match=r"is an adapter, not a model: set policy\.adapter to it"):
        config(copy).build()


def test_revision_is_for_the_hub(stories: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy.revision=main is for a Hub id"):
        config(stories, revision="main").build()


def test_missing_weights_are_an_error_and_not_noise(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layers.3.mlp" not in k}, copy / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(PolicyError, match=r"lacks 3 of its weights, model\.layers\.3\.mlp"):
        ask(config(copy).build(), [request("x")])


def test_weights_that_are_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(PolicyError, match="model folder copied cannot be loaded: ") as caught:
        ask(config(copy).build(), [request("x")])
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there(stories: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(PolicyError, match=r"policy.device=cuda: this machine has none"):
        ask(TransformersConfig(model=str(stories), device="cuda").build(), [request("x")])


def test_a_template_file_that_is_not_there(stories: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy.chat_template=.* cannot be read: No such file"):
        config(stories, chat_template=str(tmp_path / "none.jinja")).build()


def test_without_torch_the_message_says_how_to_get_it(stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python itself marks what cannot be imported
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SetupError, match=r"pip install 'recontext_data\[local\]'"):
        config(stories).build()


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub(code: str, home: Path) -> str:
    """Runs code where the Hub cannot be reached: its library reads the switch when it is imported."""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    started = "from recontext_data.policies.local.model_folder import find_model\n"
    done = subprocess.run([sys.executable, "-c", started + code], env=env, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_a_hub_id_without_the_hub(tmp_path: Path) -> None:
    said = hub("find_model('org/name')", tmp_path)
    assert "policy.model=org/name is neither a folder nor in this machine's Hub cache, and the Hub cannot be reached" in said
    assert "policy.model=a b is neither a folder nor a model on the Hub" in hub("find_model('a b')", tmp_path)


def test_a_hub_model_is_its_commit(stories: Path, tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "models--org--name"
    shutil.copytree(stories, cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    said = hub("import json; print(json.dumps(find_model('org/name').identity()))", tmp_path)
    assert json.loads(said) == {"model": "org/name", "commit": COMMIT}


def test_finding_a_model_imports_nothing_heavy(stories: Path) -> None:
    code = (
        "import sys; from recontext_data.policies.local.transformers import TransformersConfig as C\n"
        f"C(model={str(stories)!r}).build().identity; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert find_model(str(stories)).name == "stories260K"


TARGETS = ["q_proj", "v_proj", "down_proj"]


def save_adapter(folder: Path, base: Path, *, trained: bool = True, base_name: str | None = None, **overrides: Any) -> Path:
    """A LoRA adapter for the model in `base`, as PEFT writes it; the weights of a trained one are random, but not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)  # fixed so that the adapter's texts are the same in every run
    shape = AutoConfig.from_pretrained(base, **overrides)
    adapted = get_peft_model(AutoModelForCausalLM.from_config(shape), LoraConfig(r=4, target_modules=TARGETS))
    for name, weights in adapted.named_parameters():
        if trained and "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    if base_name is not None:
        # Afterwards: PEFT would look for that model on the Hub.
        settings = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": base_name}))
    return folder


@pytest.fixture(scope="module")
def adapter(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("peft", reason="peft is not installed: pip install 'recontext_data[local]'")
    return save_adapter(tmp_path_factory.mktemp("adapters") / "mine", stories)


def test_an_adapter_speaks_as_the_merged_model_does(stories: Path, adapter: Path, policy: TransformersPolicy) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapted = config(stories, adapter=str(adapter)).build()
    requests = [request(text, temperature=0.0) for text in OPENINGS]
    replies = ask(adapted, requests)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(stories), adapter).merge_and_unload()
    for one in requests:
        prompt = torch.tensor([encode_prompt(adapted._tokenizer, messages=one.messages)])
        out = merged.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40, max_length=None
        )
        told = adapted._tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
        assert replies[one.keys[0]].completion == told
        assert replies[one.keys[0]].model == "stories260K + mine"
    assert {key: reply.completion for key, reply in replies.items()} != texts(policy, requests)
    asyncio.run(adapted.close())


def test_an_adapters_content_is_part_of_the_identity(stories: Path, adapter: Path, tmp_path: Path) -> None:
    plain = config(stories).build().identity
    with_it = config(stories, adapter=str(adapter)).build().identity
    assert with_it != plain
    moved = tmp_path / "elsewhere"
    shutil.copytree(adapter, moved)
    (moved / "README.md").write_text("a note decides nothing")
    assert config(stories, adapter=str(moved)).build().identity == with_it
    weights = bytearray((moved / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "adapter_model.safetensors").write_bytes(weights)
    assert config(stories, adapter=str(moved)).build().identity != with_it


def test_an_adapter_that_changes_nothing_is_refused(stories: Path, tmp_path: Path) -> None:
    untrained = save_adapter(tmp_path / "untrained", stories, trained=False)
    with pytest.raises(PolicyError, match=r"policy\.adapter: the adapter changes nothing: untrained gives the same logits"):
        ask(config(stories, adapter=str(untrained)).build(), [request("x")])


def test_an_adapter_of_another_model(stories: Path, tmp_path: Path) -> None:
    other = save_adapter(tmp_path / "theirs", stories, base_name="Org/Other-Model")
    with pytest.raises(PolicyError, match=r"theirs was trained on Org/Other-Model, and policy\.model is stories260K: give"):
        config(stories, adapter=str(other)).build()
    trusted = config(stories, adapter=str(other), check_base=False).build()
    assert ask(trusted, [request("x")])
    asyncio.run(trusted.close())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"hidden_size": 32, "head_dim": 4}, "does not fit the model: size mismatch for .*lora_A"),
        ({"num_hidden_layers": 7}, "it has, and the model has no place for, 12 weights, .*layers.5"),
        ({"num_hidden_layers": 3}, "it lacks 12 weights, .*layers.3"),
    ],
)
def test_an_adapter_of_another_shape(stories: Path, tmp_path: Path, overrides: dict[str, Any], words: str) -> None:
    other = save_adapter(tmp_path / "other", stories, **overrides)
    with pytest.raises(PolicyError, match=words) as caught:
        ask(config(stories, adapter=str(other)).build(), [request("x")])
    assert "\n" not in str(caught.value)


def test_what_an_adapter_folder_lacks_is_said_before_anything_is_loaded(stories: Path, adapter: Path, tmp_path: Path) -> None:
    def said(folder: Path) -> str:
        with pytest.raises(PolicyError) as caught:
            config(stories, adapter=str(folder)).build()
        return str(caught.value)

    broken = tmp_path / "broken"
    assert "policy.adapter: no folder" in said(broken)
    shutil.copytree(adapter, broken)
    (broken / "adapter_model.safetensors").rename(broken / "weights")
    assert said(broken) == "adapter folder broken has no weights: expected adapter_model.safetensors"
    (broken / "weights").rename(broken / "adapter_model.safetensors")
    settings = json.loads((broken / "adapter_config.json").read_text())
    (broken / "adapter_config.json").write_text(json.dumps(settings | {"peft_type": "IA3"}))
    assert "is of the kind IA3: policy.adapter takes LORA" in said(broken)
    (broken / "adapter_config.json").write_text("{")
    assert "adapter_config.json is not JSON" in said(broken)
    (broken / "adapter_config.json").unlink()
    assert "adapter folder broken has no adapter_config.json" in said(broken)
    (broken / "adapter_config.json").write_text(json.dumps(settings))
    (broken / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(PolicyError, match="adapter broken does not fit the model: ") as caught:
        ask(config(stories, adapter=str(broken)).build(), [request("x")])
    assert "\n" not in str(caught.value)


def test_without_peft_the_message_says_how_to_get_it(stories: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SetupError, match=r"needs peft: pip install 'recontext_data\[local\]'"):
        config(stories, adapter=str(adapter)).build()
