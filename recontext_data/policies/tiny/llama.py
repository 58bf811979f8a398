"""A Llama's forward pass in numpy, in float64: prompts are read once, then all completions grow together.

    model = Llama.load(folder)                          # a Transformers folder of a small Llama
    state, logits_P_V = model.prefill([[1, 5, 9], [1, 7]])
    logits_P_N_V = model.step(state, tokens_P_N)        # N completions of each prompt

Float64, so that what a row becomes does not hang on the batch it was in: rounding then changes a draw once in about 1e13.
Axes: P prompts, N completions of each, T prompt positions, S generated positions, H heads, G heads per key head, D head
width, E model width, V vocabulary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

WEIGHTS = "model.safetensors"
FIXED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""What this file computes; a config that says otherwise is refused. A key that is absent has these values in Llama."""


class Unsupported(ValueError):
    """The folder holds something other than a Llama that this file computes."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One block's weights, each transposed so that a row of activations multiplies from the left."""

    norm_in_E: Floats
    norm_out_E: Floats
    query_E_HD: Floats
    key_value_E_2HD: Floats
    out_HD_E: Floats
    gate_up_E_2F: Floats
    down_F_E: Floats


@dataclass(slots=True)
class State:
    """What has been read: the prompts' keys and values, shared by their completions, and those of each completion."""

    lengths_P: Ints
    prompt: list[tuple[Floats, Floats]]
    """By layer: keys and values, each P, H, T, D."""
    grown: list[tuple[Floats, Floats]]
    """By layer: keys and values, each P, H, N, S, D; S has room to grow."""
    num_grown: int = 0

    def keep(self, rows: Ints) -> None:
        """Forgets all prompts but these."""
        self.lengths_P = self.lengths_P[rows]
        self.prompt = [(keys[rows], values[rows]) for keys, values in self.prompt]
        self.grown = [(keys[rows], values[rows]) for keys, values in self.grown]


@dataclass(frozen=True, slots=True)
class Llama:
    """The model. `window` is the most positions that it reads."""

    layers: Sequence[Layer]
    embedding_V_E: Floats
    head_E_V: Floats
    norm_E: Floats
    frequencies_D2: NDArray[np.float32]
    heads: int
    key_heads: int
    epsilon: float
    window: int
    num_parameters: int

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads config.json and model.safetensors.

        Raises:
            Unsupported: the config asks for what this file does not compute, or a weight is missing.
        """
        config = json.loads((folder / "config.json").read_text())
        _refuse_others(config)
        tensors = _read(folder / WEIGHTS)
        try:
            return cls(**_weights(config, tensors), num_parameters=sum(t.size for t in tensors.values()))
        except KeyError as missing:
            raise Unsupported(f"{WEIGHTS} or config.json has no {missing}") from missing

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[State, Floats]:
        """Reads prompts; gives the state and the logits of what follows each. Shorter ones are padded on the right."""
        lengths_P = np.array([len(prompt) for prompt in prompts])
        ids_P_T = np.zeros((len(prompts), lengths_P.max()), np.int64)
        for row, prompt in zip(ids_P_T, prompts, strict=True):
            row[: len(prompt)] = prompt
        x_P_T_E = self.embedding_V_E[ids_P_T]
        turn = self._turns(np.arange(ids_P_T.shape[1]))
        cache = []
        for layer in self.layers:
            normed_P_T_E = _rms(x_P_T_E, layer.norm_in_E, self.epsilon)
            keys, values = self._keys_values(layer, normed_P_T_E, turn)
            cache.append((keys, values))
            first_T = 0 * lengths_P
            if layer is self.layers[-1]:  # only the last position is asked of the last layer
                first_T, last = lengths_P - 1, (np.arange(len(prompts)), lengths_P - 1)
                x_P_T_E, normed_P_T_E = x_P_T_E[last][:, None], normed_P_T_E[last][:, None]
                turn_q = (turn[0][lengths_P - 1][:, None, None], turn[1][lengths_P - 1][:, None, None])
            else:
                turn_q = turn
            queries = _turned(self._split(_times(normed_P_T_E, layer.query_E_HD), self.heads), *turn_q)
            x_P_T_E = self._after(layer, x_P_T_E, _causal(queries, keys, values, first_T, lengths_P))
        return State(lengths_P, cache, []), self._logits(x_P_T_E[:, 0])

    def step(self, state: State, tokens_P_N: Ints) -> Floats:
        """Adds one token to every completion; gives the logits of what follows."""
        x_P_N_E = self.embedding_V_E[tokens_P_N]
        turn = self._turns(state.lengths_P + state.num_grown)
        turn = (turn[0][:, None, None], turn[1][:, None, None])
        unread_P_T = np.arange(state.prompt[0][0].shape[2]) >= state.lengths_P[:, None]
        for depth, layer in enumerate(self.layers):
            normed_P_N_E = _rms(x_P_N_E, layer.norm_in_E, self.epsilon)
            self._grow(state, depth, *self._keys_values(layer, normed_P_N_E, turn))
            queries = _turned(self._split(_times(normed_P_N_E, layer.query_E_HD), self.heads), *turn)
            x_P_N_E = self._after(layer, x_P_N_E, _grown(queries, state, depth, unread_P_T))
        state.num_grown += 1
        return self._logits(x_P_N_E)

    def _keys_values(self, layer: Layer, x_P_T_E: Floats, turn: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        both = _times(x_P_T_E, layer.key_value_E_2HD)
        middle = both.shape[-1] // 2
        keys = _turned(self._split(both[..., :middle], self.key_heads), *turn)
        return keys, np.ascontiguousarray(self._split(both[..., middle:], self.key_heads))

    def _after(self, layer: Layer, x_P_T_E: Floats, heard_P_H_T_D: Floats) -> Floats:
        """The rest of a block, from what the heads heard."""
        flat = heard_P_H_T_D.swapaxes(1, 2).reshape(*x_P_T_E.shape[:2], -1)
        x_P_T_E = x_P_T_E + _times(flat, layer.out_HD_E)
        both = _times(_rms(x_P_T_E, layer.norm_out_E, self.epsilon), layer.gate_up_E_2F)
        gate, up = np.split(both, 2, axis=-1)
        up *= gate
        up /= 1 + np.exp(-gate)
        x_P_T_E += _times(up, layer.down_F_E)
        return x_P_T_E

    def _logits(self, x: Floats) -> Floats:
        return _times(_rms(x, self.norm_E, self.epsilon), self.head_E_V)

    def _split(self, x_P_T_HD: Floats, heads: int) -> Floats:
        return x_P_T_HD.reshape(*x_P_T_HD.shape[:2], heads, -1).swapaxes(1, 2)

    def _turns(self, positions: Ints) -> tuple[Floats, Floats]:
        # Angles are rounded to float32, as they were when the weights were trained; it matters from some hundred positions on.
        angles = (positions[:, None].astype(np.float32) * self.frequencies_D2).astype(np.float64)
        return np.cos(angles), np.sin(angles)

    def _grow(self, state: State, depth: int, keys_P_H_N_D: Floats, values_P_H_N_D: Floats) -> None:
        room = 0 if depth >= len(state.grown) else state.grown[depth][0].shape[3]
        if state.num_grown == room:
            wider = []
            for i, new in enumerate((keys_P_H_N_D, values_P_H_N_D)):
                grown = np.empty((*new.shape[:3], max(16, 2 * room), new.shape[3]))
                if room:
                    grown[:, :, :, :room] = state.grown[depth][i]
                wider.append(grown)
            state.grown[depth : depth + 1] = [(wider[0], wider[1])]
        state.grown[depth][0][:, :, :, state.num_grown] = keys_P_H_N_D
        state.grown[depth][1][:, :, :, state.num_grown] = values_P_H_N_D


def _causal(queries: Floats, keys: Floats, values: Floats, first_P: Ints, lengths_P: Ints) -> Floats:
    """Attention within each prompt for positions from `first` on; prompt by prompt, since a prompt's scores fit the cache."""
    heard_P_H_T_D = np.zeros_like(queries)
    for row, (first, length) in enumerate(zip(first_P.tolist(), lengths_P.tolist(), strict=True)):
        num_rows = length - first
        query_K_GT_D = _grouped(queries[row, :, :num_rows], keys.shape[1])
        scores = query_K_GT_D @ keys[row, :, :length].swapaxes(-1, -2)
        if num_rows > 1:
            by_head = scores.reshape(-1, num_rows, length)  # a view
            by_head += np.triu(np.full((num_rows, length), -np.inf), 1)
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        heard = (scores @ values[row, :, :length]) / scores.sum(-1, keepdims=True)
        heard_P_H_T_D[row, :, :num_rows] = heard.reshape(-1, num_rows, heard.shape[-1])
    return heard_P_H_T_D


def _grown(queries_P_H_N_D: Floats, state: State, depth: int, unread_P_T: NDArray[np.bool_]) -> Floats:
    """Attention of each completion's newest position over its prompt and over itself."""
    keys, values = state.prompt[depth]
    own_keys, own_values = (each[:, :, :, : state.num_grown + 1] for each in state.grown[depth])
    num_prompts, heads, num_rows, width = queries_P_H_N_D.shape
    grouped = queries_P_H_N_D.reshape(num_prompts, keys.shape[1], -1, num_rows, width)
    query_P_K_GN_D = grouped.reshape(num_prompts, keys.shape[1], -1, width)
    read = query_P_K_GN_D @ keys.swapaxes(-1, -2)
    read[np.broadcast_to(unread_P_T[:, None, None], read.shape)] = -np.inf
    own = (own_keys[:, :, None] @ grouped[..., None])[..., 0].reshape(*read.shape[:3], -1)
    top = np.maximum(read.max(-1), own.max(-1))[..., None]
    np.exp(np.subtract(read, top, out=read), out=read)
    np.exp(np.subtract(own, top, out=own), out=own)
    heard = read @ values
    weights = own.reshape(*grouped.shape[:4], 1, -1)
    heard += (weights @ own_values[:, :, None]).reshape(heard.shape)
    heard /= read.sum(-1, keepdims=True) + own.sum(-1, keepdims=True)
    return heard.reshape(num_prompts, heads, num_rows, width)


def _times(x: Floats, weight: Floats) -> Floats:
    """One matrix product for all rows; numpy's own product of stacked matrices makes many small ones."""
    product: Floats = (x.reshape(-1, x.shape[-1]) @ weight).reshape(*x.shape[:-1], -1)
    return product


def _grouped(query_H_T_D: Floats, key_heads: int) -> Floats:
    """Heads that share a key head beside each other, so that one product serves them all."""
    return query_H_T_D.reshape(key_heads, -1, query_H_T_D.shape[-1])


def _rms(x: Floats, weight_E: Floats, epsilon: float) -> Floats:
    mean_square = np.einsum("...e,...e->...", x, x)[..., None] / x.shape[-1]
    normed: Floats = x / np.sqrt(mean_square + epsilon)
    normed *= weight_E
    return normed


def _turned(x_P_H_T_D: Floats, cos_T_D2: Floats, sin_T_D2: Floats) -> Floats:
    """Rotary positions: the two halves of a head's width are the two coordinates."""
    half = x_P_H_T_D.shape[-1] // 2
    first, second = x_P_H_T_D[..., :half], x_P_H_T_D[..., half:]
    turned = np.empty(x_P_H_T_D.shape)
    np.subtract(first * cos_T_D2, second * sin_T_D2, out=turned[..., :half])
    np.add(second * cos_T_D2, first * sin_T_D2, out=turned[..., half:])
    return turned


def _refuse_others(config: Mapping[str, Any]) -> None:
    for name, wanted in FIXED.items():
        found = config.get(name, wanted)
        if found != wanted:
            raise Unsupported(f"config.json has {name} {found!r}, and only {wanted!r} is computed here")
    kind = _rope(config).get("rope_type", "default")
    if kind != "default":
        raise Unsupported(f"config.json has rope_type {kind!r}, and only 'default' is computed here")


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rotary settings, where Transformers 5 and where 4 write them."""
    found: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta", 10000.0), **found}


def _weights(config: Mapping[str, Any], tensors: Mapping[str, Floats]) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    embedding = tensors["model.embed_tokens.weight"]
    tied = config.get("tie_word_embeddings", False)
    return {
        "layers": [_layer(tensors, f"model.layers.{i}.", width) for i in range(config["num_hidden_layers"])],
        "embedding_V_E": embedding,
        "head_E_V": np.ascontiguousarray((embedding if tied else tensors["lm_head.weight"]).T),
        "norm_E": tensors["model.norm.weight"],
        "frequencies_D2": (_rope(config)["rope_theta"] ** (-np.arange(0, width, 2) / width)).astype(np.float32),
        "heads": heads,
        "key_heads": config.get("num_key_value_heads") or heads,
        "epsilon": config.get("rms_norm_eps", 1e-6),
        "window": config.get("max_position_embeddings", 2048),
    }


def _layer(tensors: Mapping[str, Floats], prefix: str, width: int) -> Layer:
    def columns(*names: str) -> Floats:
        return np.ascontiguousarray(np.concatenate([tensors[f"{prefix}{name}.weight"] for name in names]).T)

    return Layer(
        norm_in_E=tensors[f"{prefix}input_layernorm.weight"],
        norm_out_E=tensors[f"{prefix}post_attention_layernorm.weight"],
        query_E_HD=columns("self_attn.q_proj") / np.sqrt(width),  # the scale of the scores, applied once
        key_value_E_2HD=columns("self_attn.k_proj", "self_attn.v_proj"),
        out_HD_E=columns("self_attn.o_proj"),
        gate_up_E_2F=columns("mlp.gate_proj", "mlp.up_proj"),
        down_F_E=columns("mlp.down_proj"),
    )


def _read(path: Path) -> dict[str, Floats]:
    """The tensors of a safetensors file as float64; bfloat16 too, which numpy has no type for."""
    from safetensors import deserialize

    return {name: _tensor(entry) for name, entry in deserialize(path.read_bytes())}  # type: ignore[no-untyped-call]


def _tensor(entry: Mapping[str, Any]) -> Floats:
    if entry["dtype"] == "BF16":
        flat = (np.frombuffer(entry["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
    elif entry["dtype"] in ("F16", "F32", "F64"):
        flat = np.frombuffer(entry["data"], f"<f{int(entry['dtype'][1:]) // 8}")
    else:
        raise Unsupported(f"{WEIGHTS} has a tensor of type {entry['dtype']}, and only F16, BF16, F32 and F64 are read here")
    return flat.reshape(entry["shape"]).astype(np.float64)
