"""VGGish: Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017, arXiv:1609.09430.

Features are 128 values for each 0.96 seconds. `postprocess` of `_vggish_network` brings them to the form in which those
of AudioSet are published, with the tensors that `read_pca` reads.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ...audio import AudioInput
from ...errors import WeightsMismatchError
from .._records import ARCHITECTURES, Architecture, BuildOptions, Parts, UrlSource, Weights
from ._torch_arrays import load_with_arrays
from ._vggish_network import EMBEDDING, SAMPLE_RATE, SHORTEST, VGGish
from ._vggish_network import postprocess as postprocess

PAPER = "Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017, arXiv:1609.09430"
ADDRESS = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/"
EXPECTED = AudioInput(sample_rate=SAMPLE_RATE, shortest=SHORTEST)
PCA = UrlSource(f"{ADDRESS}vggish_pca_params-970ea276.pth", "970ea276")


def build_vggish(options: BuildOptions) -> Parts:
    """The network, which was published without a head."""
    return Parts(trunk=VGGish(), head=None, feature_size=EMBEDDING, channels_last=True)


def read_pca(path: Path | str) -> tuple[Tensor, Tensor]:
    """(eigenvectors (128, 128), means (128,)) of the file at PCA.url, float32, as `postprocess` takes them."""
    content = load_with_arrays(Path(path))
    found = content if isinstance(content, dict) else {}
    vectors, means = (found.get(name) for name in ("pca_eigen_vectors", "pca_means"))
    if not isinstance(vectors, Tensor) or not isinstance(means, Tensor) or means.numel() != EMBEDDING:
        raise WeightsMismatchError(f"{path} holds no pca_eigen_vectors and pca_means; fetch {PCA.url}.")
    if vectors.shape != (EMBEDDING, EMBEDDING):
        raise WeightsMismatchError(f"{path} holds pca_eigen_vectors {tuple(vectors.shape)}; (128, 128) are expected.")
    return vectors.float(), means.flatten().float()


ARCHITECTURES.add(
    "vggish",
    Architecture(
        name="vggish",
        domain="audio",
        tasks=("features",),
        build=build_vggish,
        input=EXPECTED,
        stages=(
            *(f"features.{place}" for place in (0, 3, 6, 8, 11, 13)),
            *(f"embeddings.{place}" for place in (0, 2, 4)),
        ),
        head_name="classifier",
        pooling="avg",
        paper=PAPER,
        licence="apache-2.0",
        weights={
            "audioset": Weights(
                name="audioset",
                source=UrlSource(f"{ADDRESS}vggish-10086976.pth", "10086976"),
                licence="apache-2.0",
                paper=PAPER,
                input=EXPECTED,
                sha256="10086976",
            )
        },
        default_weights="audioset",
        outputs=0,
        roles={"stem": "features.0", "mlp.out": "embeddings.[02]"},
    ),
)
