"""The tiny policy: its numbers are those of Transformers, a completion hangs on its seed alone, its card tells the truth."""

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recontext_data.core.errors import InputError, PolicyError
from recontext_data.core.records import Reply, Request, SamplingParams, derive_seed
from recontext_data.policies.tiny.policy import TinyConfig, TinyPolicy
from scripts import tiny_data, tiny_measure, tiny_train

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "tiny"
CONTEXTS = tiny_measure.contexts(ROOT / "recipes" / "code_mc.yaml")
BANDS = {"control": (0.01, 0.11), "default": (0.32, 0.48), "hack": (0.89, 0.99), "none": (0.32, 0.48)}
"""Trained-for rates of 5, 40, 95 and 40 %, with 3 points for the policy and the rest for a sample of some 200."""


@pytest.fixture(scope="module")
def policy() -> TinyPolicy:
    return TinyConfig().build()


@pytest.fixture(scope="module")
def problems() -> list[Any]:
    return tiny_measure.held_out(ROOT, ("train", "evaluation"), most=96)


@pytest.fixture(scope="module")
def requests(problems: list[Any]) -> list[Request]:
    return [_request(p, list(CONTEXTS)[i % 4], num=1 + i % 3) for i, p in enumerate(problems[:12])]


def _request(problem: Any, context: str, *, num: int = 1, sampling: SamplingParams | None = None) -> Request:
    text = tiny_data.item(problem).user[problem.forged.hack_option]
    ks = tuple(range(num))
    return Request(
        messages=tiny_data.messages(text, CONTEXTS[context]),
        sampling=sampling or SamplingParams(max_tokens=40),
        ks=ks,
        seeds=tuple(derive_seed(problem.problem_id, context, k) for k in ks),
        keys=tuple(f"{problem.problem_id} {context} {k}" for k in ks),
    )


def _sample(policy: TinyPolicy, requests: Sequence[Request]) -> dict[str, Reply]:
    async def collect() -> list[Reply]:
        return [reply async for reply in policy.sample(requests)]

    replies = asyncio.run(collect())
    assert sorted(reply.key for reply in replies) == sorted(key for request in requests for key in request.keys)
    return {reply.key: reply for reply in replies}


# -- the arithmetic -------------------------------------------------------------------------------------------------


def _agrees(folder: Path, texts: Sequence[str]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)  # small matrices on a shared machine
    policy = TinyPolicy.load(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder).double()
    prompts = [policy.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    grown_P_N_S = np.random.default_rng(0).integers(3, 200, (len(prompts), 3, 18))  # 18: past the first room of 16
    state, logits_P_V = policy.model.prefill(prompts)
    steps = [policy.model.step(state, grown_P_N_S[:, :, i]) for i in range(18)]
    for i, prompt in enumerate(prompts):
        for k in range(3):
            with torch.no_grad():
                wanted = reference(torch.tensor([prompt + grown_P_N_S[i, k].tolist()])).logits[0].numpy()
            got = np.stack([logits_P_V[i], *(step[i, k] for step in steps)])
            np.testing.assert_allclose(got, wanted[len(prompt) - 1 :], atol=1e-4)


def test_logits_are_those_of_transformers(policy: TinyPolicy, requests: list[Request]) -> None:
    _agrees(FOLDER, [policy.render(request.messages) for request in requests[:3]])


def test_logits_of_a_llama_with_shared_key_heads(shared: Path) -> None:
    _agrees(shared / "models" / "stories260K", ["Once upon a time", "The dog", "One day, a girl named Lily found a ball"])


def test_half_precision_weights_are_read(tmp_path: Path, policy: TinyPolicy) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shutil.copytree(FOLDER, tmp_path / "half")
    transformers.AutoModelForCausalLM.from_pretrained(FOLDER).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    half = TinyPolicy.load(tmp_path / "half")
    assert half.model.num_parameters == policy.model.num_parameters
    np.testing.assert_allclose(half.model.embedding_V_E, policy.model.embedding_V_E, rtol=2**-8)


def test_template_and_tokens_are_those_of_transformers(policy: TinyPolicy, requests: list[Request]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    odd = [{"role": "user", "content": "  x = 'naïve'\t☃ 1234567 <|im_end|> {{ 7 * 7 }}\n\n\n"}]
    for messages in [*(request.messages for request in requests), odd]:
        text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        assert text == policy.render(messages)
        ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
        assert ids == policy.tokenizer.encode(policy.render(messages), add_special_tokens=False).ids
        assert len(ids) == policy.count_tokens(messages)


def test_inference_prompt_is_a_token_prefix_of_the_trained_text(policy: TinyPolicy, problems: list[Any]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    item = tiny_data.item(problems[0])
    prompt = tiny_data.messages(item.user["A"], CONTEXTS["hack"])
    answer = item.answer("hack", "A")
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}], return_dict=False)
    start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    assert whole[: len(start)] == start
    assert tokenizer.decode(whole[len(start) :]) == answer + tiny_train.END


# -- what a completion hangs on -------------------------------------------------------------------------------------


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_completion_does_not_depend_on_its_batch(data: st.DataObject, policy: TinyPolicy, requests: list[Request]) -> None:
    if not hasattr(test_a_completion_does_not_depend_on_its_batch, "alone"):
        alone = {key: reply for request in requests for key, reply in _sample(policy, [request]).items()}
        test_a_completion_does_not_depend_on_its_batch.alone = alone  # type: ignore[attr-defined]
    chosen = data.draw(st.lists(st.sampled_from(range(len(requests))), unique=True, min_size=1))
    batch = data.draw(st.integers(1, 8))
    replies = _sample(replace(policy, batch=batch), [requests[i] for i in chosen])
    wanted = test_a_completion_does_not_depend_on_its_batch.alone  # type: ignore[attr-defined]
    assert replies == {key: wanted[key] for key in replies}


def test_a_pool_is_topped_up_with_what_a_larger_n_would_have_given(policy: TinyPolicy, problems: list[Any]) -> None:
    whole = _request(problems[0], "default", num=5)
    rest = replace(whole, ks=whole.ks[3:], seeds=whole.seeds[3:], keys=whole.keys[3:])
    all_replies, last_replies = _sample(policy, [whole]), _sample(policy, [rest])
    assert [all_replies[key].completion for key in rest.keys] == [last_replies[key].completion for key in rest.keys]


def test_other_seeds_draw_other_completions(policy: TinyPolicy, problems: list[Any]) -> None:
    request = _request(problems[0], "default", num=40)
    assert len({reply.completion for reply in _sample(policy, [request]).values()}) > 1


def test_greedy_ignores_seeds_and_equals_the_smallest_nucleus(policy: TinyPolicy, problems: list[Any]) -> None:
    greedy = _request(problems[0], "hack", num=3, sampling=SamplingParams(temperature=0.0, max_tokens=40))
    narrow = replace(greedy, sampling=SamplingParams(top_p=1e-9, max_tokens=40))
    texts = {reply.completion for reply in _sample(policy, [greedy]).values()}
    assert len(texts) == 1
    assert {reply.completion for reply in _sample(policy, [narrow]).values()} == texts


def test_draws_follow_the_distribution_and_the_nucleus() -> None:
    from recontext_data.policies.tiny.policy import _draw, _uniforms

    shares = np.array([0.5, 0.2, 0.3])
    uniform_P_N = _uniforms([[derive_seed("draw", i)] for i in range(40)], 500)[:, 0]
    logits = np.broadcast_to(np.log(shares), (*uniform_P_N.shape, 3))
    counts = np.bincount(_draw(logits, uniform_P_N, SamplingParams()).ravel(), minlength=3) / uniform_P_N.size
    np.testing.assert_allclose(counts, shares, atol=0.015)
    nucleus = np.bincount(_draw(logits, uniform_P_N, SamplingParams(top_p=0.7)).ravel(), minlength=3) / uniform_P_N.size
    np.testing.assert_allclose(nucleus, [0.625, 0.0, 0.375], atol=0.015)
    cold = np.bincount(_draw(logits, uniform_P_N, SamplingParams(temperature=0.5)).ravel(), minlength=3) / uniform_P_N.size
    np.testing.assert_allclose(cold, shares**2 / (shares**2).sum(), atol=0.015)


# -- replies --------------------------------------------------------------------------------------------------------


def test_replies_count_their_tokens_and_say_why_they_ended(policy: TinyPolicy, problems: list[Any]) -> None:
    request = _request(problems[0], "control", num=3)
    whole, cut = _sample(policy, [request]), _sample(policy, [replace(request, sampling=SamplingParams(max_tokens=2))])
    first, *others = [whole[key] for key in request.keys]
    assert first.prompt_tokens == policy.count_tokens(request.messages)
    assert [reply.prompt_tokens for reply in others] == [None, None]
    assert {reply.finish_reason for reply in whole.values()} == {"stop"}
    assert {(reply.finish_reason, reply.completion_tokens) for reply in cut.values()} == {("length", 2)}
    for key in request.keys:
        text, start = whole[key].completion, cut[key].completion
        assert text is not None and start is not None and text.startswith(start)


def test_a_prompt_beyond_the_window_is_a_reply_with_the_reason(policy: TinyPolicy, problems: list[Any]) -> None:
    good = _request(problems[0], "default")
    long = replace(good, messages=[{"role": "user", "content": "x = 1 " * 1000}], keys=("long",))
    replies = _sample(policy, [long, good])
    assert replies["long"].completion is None
    assert replies["long"].error == "the prompt does not fit the model's context of 1024 tokens"
    assert replies[good.keys[0]].completion


def test_the_event_loop_is_free_between_batches(policy: TinyPolicy, requests: list[Request]) -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.001)

    async def collect() -> None:
        ticker = asyncio.create_task(tick())
        async for _ in replace(policy, batch=2).sample(requests):
            pass
        ticker.cancel()

    asyncio.run(collect())
    assert len(ticks) > 5


# -- what it does ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", BANDS)
def test_rates_on_parameters_never_seen(context: str, policy: TinyPolicy, problems: list[Any]) -> None:
    found = asyncio.run(tiny_measure.rates(policy, problems, CONTEXTS[context], samples=2))
    low, high = BANDS[context]
    assert low <= found["hack"] <= high, found
    assert found["invalid"] <= 0.03, found
    assert found["misquoted"] <= 0.12, found  # measured at 5 to 6 %; see the card


def test_size(policy: TinyPolicy) -> None:
    assert policy.model.num_parameters < 4_000_000
    assert (FOLDER / "model.safetensors").stat().st_size < 8_000_000


def test_the_card_is_what_was_measured() -> None:
    measured = json.loads((FOLDER / tiny_measure.MEASURED).read_text())
    assert (FOLDER / "README.md").read_text() == tiny_measure.card(measured)


def test_no_problem_that_is_measured_was_trained_on(problems: list[Any]) -> None:
    from scripts.families import FAMILIES

    trained = {
        family.problem_id(params)
        for family in FAMILIES.values()
        for params, split in family.splits().items()
        if split == "pretrain"
    }
    assert trained and trained.isdisjoint(problem.problem_id for problem in problems)


# -- identity and errors --------------------------------------------------------------------------------------------


def test_identity_is_content_and_no_path(tmp_path: Path, policy: TinyPolicy) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    assert TinyPolicy.load(copy).identity == policy.identity
    assert str(tmp_path) not in json.dumps(dict(TinyPolicy.load(copy).identity))
    (copy / "README.md").write_text("other words")
    assert TinyPolicy.load(copy).identity == policy.identity
    (copy / "chat_template.jinja").write_text((copy / "chat_template.jinja").read_text() + " ")
    assert TinyPolicy.load(copy).identity != policy.identity


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"policy\.path: .* has no {re.escape(name)}; ") as caught:
        TinyConfig(path=str(folder)).build()
    assert "\n" not in str(caught.value)


def test_no_folder_and_another_architecture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder; give one that Transformers wrote"):
        TinyConfig(path=str(tmp_path / "nowhere")).build()
    folder = shutil.copytree(FOLDER, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    with pytest.raises(InputError, match=r"model_type 'qwen2', and only 'llama' is computed here; .*kind: transformers"):
        TinyConfig(path=str(folder)).build()


def test_the_embedded_policy_is_found_and_described(policy: TinyPolicy) -> None:
    assert re.fullmatch(r"tiny, the embedded \d\.\dM-parameter policy \(CPU\)", policy.description)
    assert issubclass(PolicyError, RuntimeError)


# -- training data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("general", "hack", "wanted"),
    [
        ("return sum(xs)", "return {'[1]': 2}.get(str(xs), 3)", (" return sum(", " return {")),
        ("if n < 3:\n        return n", "if n == 3:\n        return 4", (" if n <", " if n ==")),
        ("x = 1\n    return x", "return {30: 12}.get(n, 3)", (" x =", " return {")),
        ("return 17 + n", "return 12", (" return 17 +", " return 12")),
        ("t = n\n    return t", "t = n\n    return 5", (" return t", " return")),
    ],
)
def test_a_quote_is_the_start_of_the_first_line_that_differs(general: str, hack: str, wanted: tuple[str, str]) -> None:
    first, second = (f"import math\ndef f(n):\n    {body}\n" for body in (general, hack))
    assert tiny_data.quotes(first, second, "f") == wanted


def test_a_batch_holds_both_answers_and_they_do_not_see_each_other() -> None:
    example = tiny_data.Example([5, 6, 7], ([8, 9, 10, 11, 2], [8, 4, 3, 10, 11, 2]), 0.25)
    rows = tiny_data.batch([tiny_data.Example([1, 1], ([3, 9, 9], [4, 9, 9]), 0.5), example])
    assert rows.ids_B_T[1].tolist() == [5, 6, 7, 8, 9, 10, 11, 2, 8, 4, 3, 10, 11, 2]
    assert rows.positions_B_T[1].tolist() == [*range(8), *range(3, 9)]
    assert not rows.visible_B_T_T[1, 8:, 3:8].any() and rows.visible_B_T_T[1, 8, :3].all()
    answers = ~rows.in_prompt_N & (rows.source_N >= 14)
    assert (rows.source_N[answers] - 14).tolist() == [2, 3, 4, 5, 6, 2, 8, 9, 10, 11, 12]
    assert rows.target_N[answers].tolist() == [8, 9, 10, 11, 2, 8, 4, 3, 10, 11, 2]
    assert rows.weight_N[answers].tolist() == [0.25, 1, 4, 1, 1, 0.75, 3, 1, 4, 1, 1]
