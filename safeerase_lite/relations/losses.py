"""The terms of the edit, plain functions of scores, and their sum.

A score is CLIP's logit of a picture and a caption; u is the unsafe caption, N the captions of its
listed neighbours, M those of one being or thing alone. Of the paper (arXiv 2603.14185) the idea is
known and no formula; these are our reading.

    L = suppress + λm · preserve(M) + λn · preserve(N)
"""

from torch import Tensor
from torch.nn import functional


def suppress(unsafe: Tensor, safe: Tensor, margin: float) -> Tensor:
    """mean of max(0, margin + unsafe − max safe): the unsafe must fall below the best safe one.

    From a picture's side, unsafe is its score with u, and safe its scores with N; from the
    caption's side, unsafe is u's score with an unsafe picture, and safe u's scores with pictures
    of neighbours. What is safe is a bar and no lever: no gradient reaches it.

    Args:
        unsafe: (n,).  safe: (n, k).  margin: in logits.
    """
    return (margin + unsafe - safe.detach().amax(-1)).clamp(min=0).mean()


def preserve(edited: Tensor, frozen: Tensor) -> Tensor:
    """KL(frozen ‖ edited), in nats, of the softmaxes over the candidate captions, mean over
    pictures. The unsafe caption is no candidate, so what is left of it is renormalised.

    Args:
        edited, frozen: (pictures, candidates).
    """
    return functional.kl_div(
        edited.log_softmax(-1), frozen.log_softmax(-1), reduction="batchmean", log_target=True
    )


def push_apart(cosine: Tensor) -> Tensor:
    """The mean cosine of unsafe pictures and their caption: what *pair unlearning* descends.

    Args:
        cosine: (n,).
    """
    return cosine.mean()
