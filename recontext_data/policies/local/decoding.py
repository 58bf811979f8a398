"""Batched sampling from a causal language model, in which a completion belongs to its prompt, its seed and the model.

`model.generate` draws a whole batch from one stream of random numbers, so a text depends on who its neighbours are. Here
every row has its own stream, one number per token, turned into a token by the inverse of the row's cumulative
distribution. What remains is float noise: logits of another batch shape differ in the last bits (about 1e-6 in float32,
1e-2 in bfloat16), and where a draw falls within that of a boundary between two tokens, the text changes there.

A prompt is read once however many rows it has; its keys and values are then copied once per row, into memory that has room
for the tokens to come. Transformers' own cache is made anew at every token, which for a prompt of 512 tokens takes longer
than the model (benchmarks/prefix.py).

Shapes: P prompts, B rows (completions; several may share a prompt), T tokens so far, V vocabulary.
"""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from recontext_data.core.errors import PolicyError
from recontext_data.core.records import SamplingParams

if TYPE_CHECKING:
    import torch

Finish = Literal["stop", "length", "interrupted", "broken"]


@dataclass(slots=True, kw_only=True)
class DecodingRow:
    """One completion, while and after it is drawn."""

    prompt: int
    """Index of its prompt."""
    seed: int
    limit: int
    """Tokens at most: what was asked for, or what the model's context leaves."""
    tokens: list[int] = field(default_factory=list)
    """Drawn so far, the end token included."""
    finish: Finish | None = None


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    rows: Sequence[DecodingRow],
    sampling: SamplingParams,
    stop: tuple[set[int], threading.Event],
) -> None:
    """Draws all `rows` at once and fills their `tokens` and `finish`. `stop` is the end tokens, and the event that ends all."""
    import torch

    ends, interrupted = stop
    streams = {id(row): random.Random(row.seed) for row in rows}
    live = list(rows)
    with torch.inference_mode():
        state = _DecodingState.of(model, prompts)
        state.spread([row.prompt for row in live], tokens=max((row.limit for row in live), default=0))
        while live:
            draws = [streams[id(row)].random() for row in live]
            for row, token in zip(live, choose(state.logits_BV, draws, sampling=sampling), strict=True):
                _take(row, token, ends)
            if interrupted.is_set():
                for row in live:
                    row.finish = row.finish or "interrupted"
                return
            order = fill_holes([row.finish is None for row in live])
            if len(order) < len(live):
                live = [live[i] for i in order]
                state.keep(order)
            if live:
                state.step([row.tokens[-1] for row in live])


class Reading:
    """Given texts being read after their prompts, a line per text."""

    def __init__(self, state: "_DecodingState") -> None:
        self._state = state

    @property
    def vocabulary(self) -> int:
        """Tokens that the model knows."""
        return int(self._state.logits_BV.shape[-1])

    def logits(self) -> Any:
        """Of every line's next token, as a numpy array in float64 [B, V]."""
        return self._state.logits_BV.double().cpu().numpy()

    def step(self, tokens: Sequence[int]) -> None:
        """Every line reads its next token."""
        import torch

        with torch.inference_mode():
            self._state.step(tokens)


def forced(model: Any, prompts: Sequence[Sequence[int]], *, rows: Sequence[int], tokens: int) -> Reading:
    """Reads the prompts, each once; line i goes on from prompt `rows[i]` and will read at most `tokens` more."""
    import torch

    with torch.inference_mode():
        state = _DecodingState.of(model, prompts)
        state.spread(rows, tokens=tokens)
    return Reading(state)


def fill_holes(going: Sequence[bool]) -> list[int]:
    """Which old line each new line is, when those that are not `going` leave: the last ones take their places.

    Most lines stay where they are, so that a cache need not be copied whole for each row that ends.
    """
    count = sum(going)
    movers = (i for i in range(count, len(going)) if going[i])
    return [i if going[i] else next(movers) for i in range(count)]


def choose(logits_BV: "torch.Tensor", draws: Sequence[float], *, sampling: SamplingParams) -> list[int]:
    """A token per row for a number in [0, 1) per row; -1 where the logits are no distribution (NaN, infinity)."""
    import torch

    if logits_BV.device.type == "mps":  # has no float64
        logits_BV = logits_BV.cpu()
    broken_B = ~torch.isfinite(logits_BV.amax(-1))
    if sampling.temperature == 0:
        tokens_B = logits_BV.argmax(-1)
    else:
        # float64, since a float32 sum over a vocabulary of 150,000 misses 1 by more than rare tokens are worth
        probs_BV = (logits_BV.double() / sampling.temperature).softmax(-1)
        cumulative_BV = _nucleus(probs_BV, sampling.top_p).cumsum(-1)
        draws_B1 = torch.tensor(draws, dtype=torch.float64).to(cumulative_BV.device)[:, None] * cumulative_BV[:, -1:]
        tokens_B = torch.searchsorted(cumulative_BV, draws_B1, right=True)[:, 0].clamp(max=logits_BV.shape[-1] - 1)
    tokens: list[int] = tokens_B.masked_fill(broken_B, -1).tolist()
    return tokens


def _nucleus(probs_BV: "torch.Tensor", top_p: float) -> "torch.Tensor":
    """The fewest, likeliest tokens that reach `top_p` together; the rest at 0. Not normalised again."""
    if top_p >= 1:
        return probs_BV
    sorted_BV, order_BV = probs_BV.sort(stable=True, dim=-1, descending=True)
    before_BV = sorted_BV.cumsum(-1) - sorted_BV
    return probs_BV.scatter(-1, order_BV, sorted_BV.masked_fill(before_BV >= top_p, 0.0))


def _take(row: DecodingRow, token: int, ends: set[int]) -> None:
    if token < 0:
        row.finish = "broken"
        return
    row.tokens.append(token)
    if token in ends:
        row.finish = "stop"
    elif len(row.tokens) >= row.limit:
        row.finish = "length"


class _DecodingState:
    """The model's memory of what has been read, a line per row: cache, mask, position and the next token's logits."""

    def __init__(self, model: Any, mask_BT: "torch.Tensor") -> None:
        import inspect

        self.logits_BV: torch.Tensor
        self._positions_B: torch.Tensor
        self._cache: Any = None
        self._rooms: list[_Room] = []
        self._others: list[Any] = []
        """Parts of the cache that are not kept in rooms."""
        accepted = inspect.signature(model.forward).parameters
        self._model = model
        self._mask_BT = mask_BT
        # Only the last position's logits are used; models that can leave out the others save P x T x V floats.
        self._options: dict[str, Any] = {"use_cache": True} | ({"logits_to_keep": 1} if "logits_to_keep" in accepted else {})
        self._takes_positions = "position_ids" in accepted

    @classmethod
    def of(cls, model: Any, prompts: Sequence[Sequence[int]]) -> "_DecodingState":
        """The state after the prompts, each read once however many rows it has. Padded on the left, so that ends align."""
        import torch

        width = max(len(prompt) for prompt in prompts)
        ids_PT = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
        lengths_P1 = torch.tensor([[len(prompt)] for prompt in prompts], device=model.device)
        mask_PT = (torch.arange(width, device=model.device)[None] >= width - lengths_P1).long()
        state = cls(model, mask_PT)
        # A prompt's first real token is at position 0 whatever the padding before it.
        state._read(ids_PT, (mask_PT.cumsum(-1) - 1).clamp(min=0))
        return state

    def spread(self, rows: Sequence[int], *, tokens: int) -> None:
        """A line per row: line i of the new ones is that of prompt `rows[i]`. At most `tokens` more will be read."""
        import torch
        from transformers.cache_utils import DynamicLayer

        index_B = torch.tensor(rows, dtype=torch.long, device=self._mask_BT.device)
        for layer in getattr(self._cache, "layers", None) or [self._cache]:
            # Plain attention over all that was read. Sliding windows and recurrent layers do not grow with the text.
            if type(layer) is DynamicLayer and layer.get_seq_length():
                self._rooms.append(_Room(layer, index_B, tokens=tokens))
            elif rows:
                self._others.append(layer)
                layer.reorder_cache(index_B)
        self._select(index_B)

    def keep(self, rows: Sequence[int]) -> None:
        """Fewer lines: line i of the new ones is the old line `rows[i]`, and rows[i] >= i."""
        import torch

        index_B = torch.tensor(rows, dtype=torch.long, device=self._mask_BT.device)
        for room in self._rooms:
            room.keep(rows)
        if rows:
            for layer in self._others:
                # Beam search's own means of choosing lines: every kind of cache has it, the recurrent kinds too.
                layer.reorder_cache(index_B)
        self._select(index_B)

    def step(self, tokens: Sequence[int]) -> None:
        """Reads one more token per row."""
        import torch

        ids_B1 = torch.tensor(tokens, device=self._mask_BT.device)[:, None]
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(ids_B1)], dim=-1)
        self._read(ids_B1, self._positions_B[:, None] + 1)

    def _select(self, index_B: "torch.Tensor") -> None:
        self._mask_BT = self._mask_BT[index_B]
        self._positions_B = self._positions_B[index_B]
        self.logits_BV = self.logits_BV[index_B]

    def _read(self, ids_BT: "torch.Tensor", positions_BT: "torch.Tensor") -> None:
        positions = {"position_ids": positions_BT} if self._takes_positions else {}
        out = self._model(
            input_ids=ids_BT, attention_mask=self._mask_BT, past_key_values=self._cache, **positions, **self._options
        )
        self._cache = getattr(out, "past_key_values", None)
        if self._cache is None:
            raise PolicyError(
                f"{type(self._model).__name__} keeps no past_key_values (pure state-space models do not): serve it with"
                " vLLM or the like and set policy.kind=openai"
            )
        self._positions_B = positions_BT[:, -1]
        self.logits_BV = out.logits[:, -1]


class _Room:
    """One attention layer's keys and values, with room for those to come: a new token is written, nothing is copied.

    It takes the place of the layer's own `update`; `layer.keys` and `layer.values` are always the part in use, so that
    whatever else the library asks of the layer is answered by the layer. Shape: rows, heads, tokens, width of a head.
    """

    def __init__(self, layer: Any, index_B: "torch.Tensor", *, tokens: int) -> None:
        self._layer = layer
        self._tokens = tokens
        self._memory = (self._make(layer.keys, index_B), self._make(layer.values, index_B))
        self._show(len(index_B), layer.get_seq_length())
        layer.update = self._update

    def keep(self, rows: Sequence[int]) -> None:
        """Line i becomes what line `rows[i]` was; lines after the last of `rows` are given up."""
        used = self._layer.get_seq_length()
        for memory in self._memory:
            for new, old in enumerate(rows):
                if new != old:
                    memory[new, :, :used] = memory[old, :, :used]
        self._show(len(rows), used)

    def _update(self, keys: "torch.Tensor", values: "torch.Tensor", *_: Any, **__: Any) -> tuple[Any, Any]:
        rows, used, more = keys.shape[0], self._layer.keys.shape[2], keys.shape[2]
        if used + more > self._memory[0].shape[2]:
            self._memory = (self._make(self._layer.keys), self._make(self._layer.values))
        for memory, new in zip(self._memory, (keys, values), strict=True):
            memory[:rows, :, used : used + more] = new
        self._show(rows, used + more)
        return self._layer.keys, self._layer.values

    def _make(self, part: "torch.Tensor", index_B: "torch.Tensor | None" = None) -> "torch.Tensor":
        """Memory for the rows of `part` and more tokens than it has: a quarter more at a time, as most texts end early."""
        rows = part.shape[0] if index_B is None else len(index_B)
        length = part.shape[2] + min(self._tokens, max(64, part.shape[2] // 4))
        memory = part.new_empty((rows, part.shape[1], length, part.shape[3]))
        memory[:, :, : part.shape[2]] = part if index_B is None else part[index_B]
        return memory

    def _show(self, rows: int, used: int) -> None:
        self._layer.keys, self._layer.values = (memory[:rows, :, :used] for memory in self._memory)
