"""FastGRNN: a gated recurrent cell small enough to run on every request.

In: vectors, or sequences of vectors. Out: hidden states, or scores where the network has a head. Training and
compression live elsewhere; they work on ``parameters``, one dict of arrays, which is all the state there is.

Paper: Kusupati et al., "FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated Recurrent Neural Network",
arXiv 1901.02358, equation 2. With input x, state h, gate z ("sigma" is the logistic function)::

    z  = sigma(W_z x + U_z h + b_z)
    h~ = tanh(W_h x + U_h h + b_h)
    h' = (zeta (1 - z) + nu) * h~ + z * h

The paper shares W and U between gate and update (``tied``); untied, the cell has the four matrices ``w_gate``,
``w_update``, ``u_gate``, ``u_update``. With zeta and nu in [0, 1] the state stays bounded; at zeta = 1, nu = 0, where
they start, each h' lies between h~ and h, so never outside [-1, 1].
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import ArtifactError, InvalidInputError, InvalidVectorError, ModelError, SpaceMismatchError
from tinydancer.model.artifact import load_artifact, save_artifact
from tinydancer.validation import FloatVector

__all__ = ["FastGRNN", "FastGRNNConfig"]

KIND = "fastgrnn"
MAX_INPUT = 1e18
"""Inputs of a Euclidean length beyond this are refused: their products leave float32's range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FastGRNNConfig:
    """Shape and start of a network.

    Parameters
    ----------
    input_dim, hidden_dim
        Sizes of x and h, at least 1.
    output_dim
        Rows of the linear head with a logistic function behind it; None leaves the head out.
    tied
        One W and one U for gate and update, as in the paper; False gives each its own.
    rank_w, rank_u
        Factor each W as ``W_1 W_2`` with this inner size (the paper's r_w, r_u), at most the smaller side of the
        matrix; None keeps it full. The factors pay where ``rank x (rows + columns)`` is less than ``rows x columns``.
    seed
        Of the initial weights.
    """

    input_dim: int = 384
    hidden_dim: int = 64
    output_dim: int | None = None
    tied: bool = True
    rank_w: int | None = None
    rank_u: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("input_dim", "hidden_dim"):
            put(self, name, check.count(getattr(self, name), name, low=1, high=65_536))
        limits = {
            "output_dim": 65_536,
            "rank_w": min(self.hidden_dim, self.input_dim),
            "rank_u": self.hidden_dim,
        }
        for name, high in limits.items():
            if getattr(self, name) is not None:
                put(self, name, check.count(getattr(self, name), name, low=1, high=high))
        put(self, "tied", check.boolean(self.tied, "tied"))
        put(self, "seed", check.count(self.seed, "seed"))

    @property
    def blocks(self) -> int:
        """How many matrices stand on top of each other in ``w`` and ``u``: 1 tied, 2 untied (gate, then update)."""
        return 1 if self.tied else 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of every parameter of such a network."""
        g, h, d = self.blocks, self.hidden_dim, self.input_dim
        shapes: dict[str, tuple[int, ...]] = {}
        for name, columns, rank in (("w", d, self.rank_w), ("u", h, self.rank_u)):
            if rank is None:
                shapes[name] = (g * h, columns)
            else:
                shapes[f"{name}_left"] = (g * h, rank)
                shapes[f"{name}_right"] = (g * rank, columns)
        shapes |= {"b": (2, h), "zeta": (), "nu": ()}
        if self.output_dim is not None:
            shapes |= {"w_out": (self.output_dim, h), "b_out": (self.output_dim,)}
        return shapes


class FastGRNN:
    """The network. Its methods change nothing, so any number of threads may share one.

    Parameters
    ----------
    config
        Shape; and seed, where `parameters` is None.
    parameters
        Name to ``float32`` array, in the shapes of `FastGRNNConfig.shapes`. They are used, not copied, so what a
        trainer changes in place takes effect. None draws them: Xavier (Glorot) uniform for matrices, each within
        ``sqrt(6 / (rows + columns))``, zero for biases, zeta = 1, nu = 0.
    metadata
        Facts that travel with the weights.
    sha256
        Hash of the file they came from, None if they came from none.

    Attributes
    ----------
    parameters
        ``w`` and ``u`` hold gate above update where untied, and stand as ``w_left`` times ``w_right`` where of low
        rank (block by block where untied); ``b`` has the gate's row above the update's; ``zeta`` and ``nu`` are
        scalars; ``w_out`` and ``b_out`` are the head.

    Raises
    ------
    ModelError
        Parameters that are missing, unknown, of another shape or type, not finite; zeta or nu outside [0, 1].
    """

    def __init__(
        self,
        config: FastGRNNConfig | None = None,
        parameters: Mapping[str, npt.NDArray[Any]] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        sha256: str | None = None,
    ) -> None:
        self.config = config or FastGRNNConfig()
        self.parameters: dict[str, FloatVector] = _initial(self.config) if parameters is None else dict(parameters)
        self.metadata = dict(metadata or {})
        self.sha256 = sha256
        _check_parameters(self.config, self.parameters)

    def __repr__(self) -> str:
        return f"FastGRNN({self.config}, {self.size_bytes():,} bytes)"

    @property
    def w_gate(self) -> FloatVector:
        """W_z, ``float32[hidden, input]``; where tied, the same as `w_update`."""
        return self._matrix("w", 0)

    @property
    def w_update(self) -> FloatVector:
        """W_h, ``float32[hidden, input]``."""
        return self._matrix("w", self.config.blocks - 1)

    @property
    def u_gate(self) -> FloatVector:
        """U_z, ``float32[hidden, hidden]``; where tied, the same as `u_update`."""
        return self._matrix("u", 0)

    @property
    def u_update(self) -> FloatVector:
        """U_h, ``float32[hidden, hidden]``."""
        return self._matrix("u", self.config.blocks - 1)

    def size_bytes(self) -> int:
        """Bytes of all parameters, the same in memory and (beside a header of under 2 KB) in a file."""
        return sum(array.nbytes for array in self.parameters.values())

    def step(self, x: npt.ArrayLike, h: npt.ArrayLike) -> FloatVector:
        """One step of the cell (equation 2): ``float32[hidden]`` from x of (input,) and h of (hidden,).

        Raises
        ------
        SpaceMismatchError
            x or h has another length than the network's; the message names both.
        InvalidVectorError
            x or h is not one-dimensional, or holds NaN, infinities or absurdly large numbers.
        """
        x, h = self._checked(x, 1, "x"), self._checked(h, 1, "h", self.config.hidden_dim)
        terms = self._linear("w", x)
        terms += self._linear("u", h)
        return self._gated(terms, h)

    def forward_single(self, x: npt.ArrayLike) -> FloatVector:
        """One step from the zero state: ``float32[hidden]`` from x of (input,). Errors as in `step`."""
        return self._gated(self._linear("w", self._checked(x, 1, "x")), None)

    def forward_sequence(self, xs: npt.ArrayLike) -> FloatVector:
        """All states of one sequence from the zero state: ``float32[T, hidden]`` from xs of (T, input)."""
        xs = self._checked(xs, 2, "xs")
        terms = self._linear("w", xs)
        states = np.empty((xs.shape[0], self.config.hidden_dim), dtype=np.float32)
        h: FloatVector | None = None
        for t in range(xs.shape[0]):
            now = terms[t] if h is None else terms[t] + self._linear("u", h)
            h = states[t] = self._gated(now, h)
        return states

    def encode_batch(self, xs: npt.ArrayLike) -> FloatVector:
        """Last states of many inputs at once: ``float32[B, hidden]``.

        Parameters
        ----------
        xs
            Shape (B, input): one step each; or (B, T, input): B sequences of the same length T, at least 1.
        """
        array = np.asarray(xs)
        if array.ndim != 3:
            return self._gated(self._linear("w", self._checked(array, 2, "xs")), None)
        array = self._checked(array, 3, "xs")
        if array.shape[1] == 0:
            raise InvalidVectorError(f"xs has shape {array.shape}; expected sequences of at least one step.")
        h = self._gated(self._linear("w", array[:, 0]), None)
        for t in range(1, array.shape[1]):
            terms = self._linear("w", array[:, t])
            terms += self._linear("u", h)
            h = self._gated(terms, h)
        return h

    def forward_batch(self, xs: npt.ArrayLike) -> FloatVector:
        """What the network is for, on many inputs at once: scores if it has a head, else last states.

        Parameters
        ----------
        xs
            Shape (B, input) or (B, T, input), as in `encode_batch`.

        Returns
        -------
        float32[B, output] in [0, 1] with a head, ``float32[B, hidden]`` without.
        """
        h = self.encode_batch(xs)
        return h if self.config.output_dim is None else self._head(h)

    def score(self, x: npt.ArrayLike) -> FloatVector:
        """The head over one input: ``float32[output]`` in [0, 1] from x of (input,).

        Raises
        ------
        ModelError
            The network has no head. Errors of the input as in `step`.
        """
        if self.config.output_dim is None:
            raise ModelError("This network has no head to score with.", hint="Give its config an output_dim.")
        return self._head(self.forward_single(x))

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> str:
        """Write the network as a model file; see `save_artifact` for how and for errors.

        Parameters
        ----------
        path
            The file to make or replace.
        metadata
            A JSON object of training facts; None keeps those the network was loaded with. The key ``config`` is ours.

        Returns
        -------
        str
            The content's SHA-256.
        """
        facts = self.metadata if metadata is None else metadata
        return save_artifact(path, self.parameters, kind=KIND, metadata={**facts, "config": asdict(self.config)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FastGRNN:
        """A network whose read-only weights lie in the mapped file.

        Raises
        ------
        NotFoundError
            There is no such file.
        ArtifactError
            The file is damaged, of a newer format, of another kind, or its weights are not what its config says.
        """
        artifact = load_artifact(path, kind=KIND)
        facts = dict(artifact.metadata)
        try:
            config = config_of(facts.pop("config", None))
            return cls(config, artifact.tensors, metadata=facts, sha256=artifact.sha256)
        except (ModelError, InvalidInputError) as error:
            raise ArtifactError(
                f"{os.fspath(path)!r} is no usable FastGRNN: {error.message}", hint="Train and save it again."
            ) from None

    def _matrix(self, name: str, block: int) -> FloatVector:
        rows = slice(block * self.config.hidden_dim, (block + 1) * self.config.hidden_dim)
        if name in self.parameters:
            return self.parameters[name][rows]
        left, right = self.parameters[f"{name}_left"], self.parameters[f"{name}_right"]
        rank = left.shape[1]
        product: FloatVector = left[rows] @ right[block * rank : (block + 1) * rank]
        return product

    def _linear(self, name: str, x: FloatVector) -> FloatVector:
        """Rows of x times the (stacked) matrix, ``float32[..., blocks x hidden]``: one product for both gates."""
        if name in self.parameters:
            full: FloatVector = x @ self.parameters[name].T
            return full
        left, right = self.parameters[f"{name}_left"], self.parameters[f"{name}_right"]
        inner: FloatVector = x @ right.T
        if self.config.tied:
            terms: FloatVector = inner @ left.T
            return terms
        # Each block has its own factors, and multiplies only its own half of the inner vector.
        rank, hidden = left.shape[1], self.config.hidden_dim
        stacked = np.empty((*x.shape[:-1], 2 * hidden), dtype=np.float32)
        np.matmul(inner[..., :rank], left[:hidden].T, out=stacked[..., :hidden])
        np.matmul(inner[..., rank:], left[hidden:].T, out=stacked[..., hidden:])
        return stacked

    def _gated(self, terms: FloatVector, h: FloatVector | None) -> FloatVector:
        """The next state from ``W x + U h``, with any number of leading axes; None stands for the zero state."""
        p = self.parameters
        both = terms.reshape((*terms.shape[:-1], self.config.blocks, self.config.hidden_dim)) + p["b"]
        z, update = both[..., 0, :], both[..., 1, :]
        # sigmoid(a) = (1 + tanh(a / 2)) / 2 cannot overflow, and lets one call serve the gate and the update.
        z *= 0.5
        np.tanh(both, out=both)
        z *= 0.5
        z += 0.5
        result: FloatVector = np.float32(1.0) - z
        result *= p["zeta"]
        result += p["nu"]
        result *= update
        if h is not None:
            z *= h
            result += z
        return result

    def _head(self, h: FloatVector) -> FloatVector:
        scores: FloatVector = h @ self.parameters["w_out"].T
        scores += self.parameters["b_out"]
        scores *= 0.5
        np.tanh(scores, out=scores)
        scores *= 0.5
        scores += 0.5
        return scores

    def _checked(self, value: npt.ArrayLike, ndim: int, name: str, size: int | None = None) -> FloatVector:
        size = self.config.input_dim if size is None else size
        try:
            if isinstance(value, np.ndarray) and value.dtype == np.float32:
                array = value
            else:  # narrowing 1e300 gives an infinity, which is refused below; a warning would say no more
                with np.errstate(over="ignore"):
                    array = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError):
            raise InvalidVectorError(f"{name} is {check.shown(value)}; expected an array of numbers.") from None
        if array.ndim != ndim:
            raise InvalidVectorError(f"{name} has shape {array.shape}; expected {ndim} dimension(s).")
        if array.shape[-1] != size:
            raise SpaceMismatchError(f"{name} has {array.shape[-1]} numbers; this network's {name} has {size}.")
        # One pass: the sum of squares is NaN or huge if anything is not finite. Zeros are fine here.
        if not float(np.vdot(array, array)) < MAX_INPUT**2:
            raise InvalidVectorError(
                f"{name} holds NaN, infinities or numbers beyond {MAX_INPUT:g}; expected finite numbers.",
                hint="The step that made the vector failed; make it again.",
            )
        return array


def _initial(config: FastGRNNConfig) -> dict[str, FloatVector]:
    rng = np.random.default_rng(config.seed)
    drawn: dict[str, FloatVector] = {}
    for name, shape in config.shapes().items():
        if len(shape) == 2 and name != "b":
            # The limit is that of one block: stacking is a matter of layout, not of the network.
            blocks = 1 if name == "w_out" else config.blocks
            limit = math.sqrt(6.0 / (shape[0] // blocks + shape[1]))
            drawn[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
        else:
            drawn[name] = np.full(shape, 1.0 if name == "zeta" else 0.0, dtype=np.float32)
    return drawn


def config_of(given: Any) -> FastGRNNConfig:
    """The configuration in a model file's metadata, or an error that says what is wrong with it."""
    if not isinstance(given, Mapping):
        raise ModelError(f"its config is {check.shown(given)}; expected a JSON object.")
    check.known_keys(given, [f.name for f in fields(FastGRNNConfig)], "key in its config")
    return FastGRNNConfig(**given)


def _check_parameters(config: FastGRNNConfig, parameters: Mapping[str, FloatVector]) -> None:
    shapes = config.shapes()
    if parameters.keys() != shapes.keys():
        raise ModelError(
            f"The parameters are {', '.join(sorted(parameters))}; expected {', '.join(sorted(shapes))}.",
            hint="Tied, low-rank and head settings of the config decide which there are.",
        )
    for name, shape in shapes.items():
        array: Any = parameters[name]
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != shape:
            had = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else check.shown(array)
            raise ModelError(f"Parameter {name!r} is {had}; expected float32{list(shape)}.")
        if not np.isfinite(array).all():
            raise ModelError(f"Parameter {name!r} holds NaN or infinities.", hint="The training diverged.")
    for name in ("zeta", "nu"):
        if not 0.0 <= float(parameters[name]) <= 1.0:
            raise ModelError(f"Parameter {name!r} is {float(parameters[name]):g}; expected a number in [0, 1].")
