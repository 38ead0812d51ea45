"""What the checks of both formats share."""

from __future__ import annotations

import logging
import math

_log = logging.getLogger(__name__)

# A model that was trained predicts fixed words, or what it wrote itself, far better than chance;
# one whose weights are in disorder does not, whatever else looks right.
_CHANCE = 0.75


def warn_of_chance(what: str, mean_nll: float, vocabulary: int, reasons: str) -> None:
    """Warn where a model predicts hardly better than chance.

    Args:
        what: predicts what, such as "the model predicts text".
        mean_nll: mean negative log-likelihood, in nats a token.
        vocabulary: its size.
        reasons: that this may have.
    """
    chance = math.log(vocabulary)
    if mean_nll > _CHANCE * chance:
        _log.warning(
            "%s hardly better than chance (%.1f nats a token, chance is %.1f): %s",
            what,
            mean_nll,
            chance,
            reasons,
        )
