"""Compression: the same network in fewer bytes, or in fewer multiplications.

In: trained parameters. Out: parameters that are rounded to int8, thinned out or factored, and files that are smaller
by as much. What each costs in accuracy and gains in speed is measured by ``bench/compression.py``.

- **int8**: each row of a matrix as whole numbers in [-127, 127] times one float32. A quarter of the bytes.
- **Pruning**: the numbers nearest to zero become zero, in rounds with training in between. Zeros are not stored.
- **Low rank**: a matrix as the product of two thin ones, which is faster to multiply as well.

At inference everything is float32 again, from the moment a file is loaded: NumPy multiplies whole numbers without the
processor's vector units, several times slower than float32, and a matrix with one number in ten left is still faster
multiplied in full. Only large matrices with next to nothing left are multiplied in sparse form; see `SPARSE_SHARE`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import ArtifactError, InvalidInputError, ModelError
from tinydancer.model.artifact import load_artifact, save_artifact
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig, config_of
from tinydancer.validation import FloatVector

__all__ = [
    "CompressedFastGRNN",
    "Form",
    "dequantized",
    "factorized",
    "magnitude_masks",
    "pack_parameters",
    "prune_gradually",
    "quantized",
    "unpack_parameters",
]

KIND = "fastgrnn-compressed"

Form: TypeAlias = Literal["float32", "int8", "sparse", "sparse-int8"]
Masks: TypeAlias = dict[str, npt.NDArray[np.bool_]]
AnyArray: TypeAlias = npt.NDArray[Any]

CELL_MATRICES = ("w", "w_left", "w_right", "u", "u_left", "u_right")
"""What is pruned: nearly all of a network's numbers. The head is small, and every number of it is needed."""
SPARSE_SHARE = 0.03
SPARSE_SIZE = 1 << 16
"""A matrix of at least this many numbers, of which at most this share is not zero, is multiplied by single vectors in
sparse form. Measured with NumPy 2.4 and OpenBLAS: in float32 a number costs about 0.06 ns, one that is looked up by its
index 0.8 ns and its row 8 ns. For batches, which share each number among many vectors, the full form always wins."""


def quantized(matrix: AnyArray) -> tuple[npt.NDArray[np.int8], FloatVector]:
    """Round each row to whole numbers times a scale of its own, symmetrically around zero, which stays zero.

    Parameters
    ----------
    matrix
        ``[rows, columns]``, finite.

    Returns
    -------
    values, scales
        ``int8[rows, columns]`` in [-127, 127] and ``float32[rows]`` of 0 or more. ``values * scales`` is off by at most
        half a scale, which is the row's greatest magnitude / 254.

    Raises
    ------
    ModelError
        The matrix is not finite.
    """
    if not np.isfinite(matrix).all():
        raise ModelError("The matrix holds NaN or infinities, which cannot be rounded.", hint="The training diverged.")
    scales = (np.abs(matrix).max(axis=1, initial=0.0) / 127.0).astype(np.float32)
    # A row of zeros, or of numbers so small that their scale is zero, has zeros for values.
    divisors = np.where(scales > 0.0, scales, np.float32(np.inf))
    values = np.clip(np.rint(matrix / divisors[:, None]), -127, 127)
    return values.astype(np.int8), scales


def dequantized(values: npt.NDArray[np.int8], scales: FloatVector) -> FloatVector:
    """The ``float32`` matrix that `quantized` values stand for."""
    return values.astype(np.float32) * scales[:, None]


def magnitude_masks(
    parameters: Mapping[str, AnyArray], sparsity: float, names: Collection[str] = CELL_MATRICES
) -> Masks:
    """Where to keep numbers: all but the given share, those of least magnitude, of each matrix.

    Parameters
    ----------
    parameters
        Name to array.
    sparsity
        Share that goes, in [0, 1).
    names
        Which of the parameters; names that are not there do no harm.

    Returns
    -------
    Name to booleans in the parameter's shape, as `train_network` takes them.
    """
    sparsity = check.number(sparsity, "sparsity", low=0.0, high=1.0)
    masks: Masks = {}
    for name in names:
        if name not in parameters:
            continue
        magnitudes = np.abs(parameters[name]).reshape(-1)
        kept = np.ones(magnitudes.size, dtype=np.bool_)
        # Sorted, not compared with a threshold: of equal numbers too, as many go as should.
        kept[np.argsort(magnitudes, kind="stable")[: round(sparsity * magnitudes.size)]] = False
        masks[name] = kept.reshape(parameters[name].shape)
    return masks


def prune_gradually(
    parameters: Mapping[str, AnyArray],
    sparsity: float,
    train: Callable[[Masks], object],
    *,
    rounds: int = 4,
    names: Collection[str] = CELL_MATRICES,
) -> Masks:
    """Prune in rounds, with training after each, so that what is left can take over from what went.

    After round k of n, the share ``sparsity (1 - (1 - k / n)^3)`` is gone: much at first, when much is superfluous, and
    little at last (Zhu and Gupta, arXiv 1710.01878, equation 1, from zero).

    Parameters
    ----------
    parameters
        Changed in place.
    sparsity
        Share of each matrix that is zero in the end, in [0, 1).
    train
        Called in each round with the masks so far; has to train `parameters` and keep to the masks, as
        ``lambda masks: train_network(network, xs, targets, masks=masks)`` does.
    rounds
        How many, at least 1; with 1 everything goes at once.
    names
        As in `magnitude_masks`.

    Returns
    -------
    The last masks.
    """
    rounds = check.count(rounds, "rounds", low=1)
    masks: Masks = {}
    for k in range(1, rounds + 1):
        masks = magnitude_masks(parameters, sparsity * (1.0 - (1.0 - k / rounds) ** 3), names)
        for name, mask in masks.items():
            parameters[name][~mask] = 0.0
        train(masks)
        for name, mask in masks.items():
            if parameters[name][~mask].any():
                raise InvalidInputError(
                    f"Training changed {name!r} where it was pruned.", hint="Hand the masks on to train_network."
                )
    return masks


def factorized(network: FastGRNN, *, rank_w: int | None = None, rank_u: int | None = None) -> FastGRNN:
    """A network whose matrices are the nearest ones of low rank, as products of two thin ones.

    Nearest in the sum of squares, by singular value decomposition (Eckart and Young), block by block where untied.
    Both factors get the root of each singular value, so that they train alike. Fine-tuning regains most of what is
    lost.

    Parameters
    ----------
    network
        Of full or low rank; it stays as it is.
    rank_w, rank_u
        Inner sizes; None leaves that matrix as it is.
    """
    config = network.config
    parameters: dict[str, AnyArray] = {name: array.copy() for name, array in network.parameters.items()}
    for name, rank in (("w", rank_w), ("u", rank_u)):
        if rank is None:
            continue
        blocks = {"w": (network.w_gate, network.w_update), "u": (network.u_gate, network.u_update)}[name]
        lefts, rights = [], []
        for block in blocks[: config.blocks]:
            left, values, right = np.linalg.svd(block.astype(np.float64), full_matrices=False)
            roots = np.sqrt(values[:rank])
            lefts.append(left[:, :rank] * roots)
            rights.append(roots[:, None] * right[:rank])
        for old in (name, f"{name}_left", f"{name}_right"):
            parameters.pop(old, None)
        parameters[f"{name}_left"] = np.concatenate(lefts).astype(np.float32)
        parameters[f"{name}_right"] = np.concatenate(rights).astype(np.float32)
    thinner = replace(
        config,
        rank_w=config.rank_w if rank_w is None else rank_w,
        rank_u=config.rank_u if rank_u is None else rank_u,
    )
    return FastGRNN(thinner, parameters, metadata=network.metadata)


def pack_parameters(
    parameters: Mapping[str, AnyArray], *, int8: bool, whole: Collection[str] = ("b",)
) -> tuple[dict[str, AnyArray], dict[str, Form]]:
    """Arrays in the smallest form for a file, each matrix by itself.

    A sparse form holds one bit for every number and the numbers that are not zero. (At 80% to 90% of zeros the bits
    take less than an index of 16 bits for every number left.)

    Parameters
    ----------
    parameters
        Name to array of float32.
    int8
        Whether matrices are rounded, see `quantized`.
    whole
        Names of two-dimensional arrays that are no matrices and stay as they are, as everything else that is not
        two-dimensional does.

    Returns
    -------
    tensors, forms
        For `save_artifact`, named ``<name>``, ``<name>.scales``, ``<name>.bits``; and the form of each parameter, which
        is to be saved with them.
    """
    tensors: dict[str, AnyArray] = {}
    forms: dict[str, Form] = {}
    for name, array in parameters.items():
        tensors[name], forms[name] = array, "float32"
        if array.ndim != 2 or name in whole:
            continue
        if int8:
            tensors[name], tensors[f"{name}.scales"] = quantized(array)
            forms[name] = "int8"
        present = tensors[name] != 0
        bits = np.packbits(present)
        values = tensors[name][present]
        if bits.nbytes + values.nbytes < tensors[name].nbytes:
            tensors[name], tensors[f"{name}.bits"] = values, bits
            forms[name] = "sparse-int8" if int8 else "sparse"
    return tensors, forms


def unpack_parameters(
    tensors: Mapping[str, AnyArray], forms: Mapping[str, Form], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, FloatVector]:
    """The float32 arrays that `pack_parameters` packed, rounded where it rounded them.

    Parameters
    ----------
    tensors, forms
        As `pack_parameters` returned them.
    shapes
        Name to shape of each parameter.

    Raises
    ------
    ModelError
        Tensors that are missing, superfluous, or not what their form and shape ask for.
    """
    left_over = set(tensors)
    parameters: dict[str, FloatVector] = {}
    if forms.keys() != shapes.keys():
        raise ModelError(f"The forms are those of {', '.join(sorted(forms))}; expected {', '.join(sorted(shapes))}.")
    for name, shape in shapes.items():
        form = forms[name]
        if form not in get_args(Form):
            raise ModelError(f"Parameter {name!r} is of form {check.shown(form)}; expected one of: {get_args(Form)}.")
        rounded, sparse = form.endswith("int8"), form.startswith("sparse")
        kind: type[np.generic] = np.int8 if rounded else np.float32
        if sparse:
            size = int(np.prod(shape))
            bits = _tensor(tensors, f"{name}.bits", np.uint8, ((size + 7) // 8,))
            present = np.unpackbits(bits, count=size).astype(np.bool_)
            array = np.zeros(size, dtype=kind)
            array[present] = _tensor(tensors, name, kind, (int(np.count_nonzero(present)),))
            array = array.reshape(shape)
        else:
            array = _tensor(tensors, name, kind, shape)
        if rounded:
            scales = _tensor(tensors, f"{name}.scales", np.float32, shape[:1])
            if not np.all((scales >= 0.0) & (scales < np.inf)):
                raise ModelError(f"Parameter {name!r} has a scale that is negative or not finite.")
            array = dequantized(array, scales)
        parameters[name] = array
        left_over -= {name, *([f"{name}.bits"] if sparse else []), *([f"{name}.scales"] if rounded else [])}
    if left_over:
        raise ModelError(f"There is a tensor {min(left_over)!r} that belongs to no parameter.")
    return parameters


class CompressedFastGRNN(FastGRNN):
    """A FastGRNN whose file is small. It computes as any other, with the numbers that its file holds.

    A single step from zero is off by at most ``1.25 (zeta + nu) |x|_1 m_i / 254`` in its i-th number, m_i being the
    greatest magnitude in row i of W, where W is rounded to int8; not at all where it is not rounded.

    Parameters
    ----------
    network
        Stays as it is. What has zeros in it, as pruning leaves them, is stored without them where that is smaller.
    int8
        Whether matrices are rounded.

    Notes
    -----
    ``parameters`` are read-only: what is changed there would not reach the file. To train on, copy them into a
    `FastGRNN`, and compress that.
    """

    def __init__(self, network: FastGRNN, *, int8: bool = True) -> None:
        tensors, forms = pack_parameters(network.parameters, int8=int8)
        # Copied, since what is stored as it is would still be the array of the other network.
        own = {name: array.copy() for name, array in tensors.items()}
        self._assemble(network.config, own, forms, network.metadata, None)

    @property
    def forms(self) -> dict[str, Form]:
        """How each parameter is stored: ``float32``, ``int8``, ``sparse`` or ``sparse-int8``."""
        return dict(self._forms)

    def size_bytes(self) -> int:
        """Bytes of all parameters as stored, beside a header of under 3 KB. In memory they are full float32."""
        return sum(array.nbytes for array in self._tensors.values())

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> str:
        """As `FastGRNN.save`, in compressed form."""
        facts = self.metadata if metadata is None else metadata
        own = {"config": asdict(self.config), "forms": self._forms}
        return save_artifact(path, self._tensors, kind=KIND, metadata={**facts, **own})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CompressedFastGRNN:
        """A network from such a file; errors as in `FastGRNN.load`.

        Unlike an uncompressed network's, its weights are not shared with other processes: each has its own.
        """
        artifact = load_artifact(path, kind=KIND)
        facts = dict(artifact.metadata)
        network = cls.__new__(cls)
        try:
            config = config_of(facts.pop("config", None))
            forms = facts.pop("forms", None)
            if not isinstance(forms, dict):
                raise ModelError(f"its forms are {check.shown(forms)}; expected a JSON object.")
            network._assemble(config, artifact.tensors, forms, facts, artifact.sha256)
        except (ModelError, InvalidInputError) as error:
            raise ArtifactError(
                f"{os.fspath(path)!r} is no usable FastGRNN: {error.message}", hint="Compress and save it again."
            ) from None
        return network

    def _assemble(
        self,
        config: FastGRNNConfig,
        tensors: Mapping[str, AnyArray],
        forms: Mapping[str, Form],
        metadata: Mapping[str, Any],
        sha256: str | None,
    ) -> None:
        parameters = unpack_parameters(tensors, forms, config.shapes())
        FastGRNN.__init__(self, config, parameters, metadata=metadata, sha256=sha256)
        self._tensors, self._forms = tensors, dict(forms)
        for array in self.parameters.values():
            array.flags.writeable = False
        matrices = {name: self.parameters[name] for name in ("w", "u") if name in self.parameters}
        self._sparse = {name: SparseRows.of(matrix) for name, matrix in matrices.items() if _worth_sparse(matrix)}

    def _linear(self, name: str, x: FloatVector) -> FloatVector:
        if x.ndim == 1 and name in self._sparse:
            return self._sparse[name].times(x)
        return super()._linear(name, x)


@dataclass(frozen=True, slots=True)
class SparseRows:
    """A matrix as its numbers that are not zero, row by row (compressed sparse rows, without the empty ones)."""

    values: FloatVector
    columns: npt.NDArray[np.intp]
    rows: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    height: int

    @classmethod
    def of(cls, matrix: FloatVector) -> SparseRows:
        rows, columns = np.nonzero(matrix)
        filled, starts = np.unique(rows, return_index=True)
        return cls(matrix[rows, columns], columns, filled, starts, matrix.shape[0])

    def times(self, x: FloatVector) -> FloatVector:
        result = np.zeros(self.height, dtype=np.float32)
        if self.values.size:
            result[self.rows] = np.add.reduceat(self.values * x.take(self.columns), self.starts)
        return result


def _worth_sparse(matrix: FloatVector) -> bool:
    return matrix.size >= SPARSE_SIZE and int(np.count_nonzero(matrix)) <= SPARSE_SHARE * matrix.size


def _tensor(tensors: Mapping[str, AnyArray], name: str, kind: type[np.generic], shape: tuple[int, ...]) -> AnyArray:
    array = tensors.get(name)
    if array is None or array.dtype != kind or array.shape != shape:
        had = "missing" if array is None else f"{array.dtype}{list(array.shape)}"
        raise ModelError(f"Tensor {name!r} is {had}; expected {np.dtype(kind)}{list(shape)}.")
    return array
