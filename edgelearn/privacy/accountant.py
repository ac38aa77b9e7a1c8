"""What releases with Gaussian noise cost in (ε, δ).

Two ways: exactly, for a Gaussian mechanism that everybody takes part in every time (a board's own noise), and by Rényi
divergence for one whose participants are drawn by coin each round (the server's noise), after Mironov, Talwar and
Zhang, "Rényi differential privacy of the sampled Gaussian mechanism" (2019, arXiv 1908.10530). Neighbours differ by one
board that is there or not. Compared in the tests with figures of Google's dp-accounting, which cannot be installed
beside the versions that are pinned here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ORDERS: Sequence[int] = (*range(2, 65), 72, 80, 96, 128, 192, 256, 384, 512)


def gaussian_delta(noise_multiplier: float, releases: int, epsilon: float) -> float:
    """The exact δ of so many Gaussian releases: together they are one with sensitivity √releases (Balle and Wang, ICML
    2018, theorem 8)."""
    mu = math.sqrt(releases) / noise_multiplier  # sensitivity in standard deviations
    return _normal(mu / 2 - epsilon / mu) - math.exp(min(epsilon, 700.0)) * _normal(-mu / 2 - epsilon / mu)


def gaussian_epsilon(noise_multiplier: float, releases: int, delta: float) -> float:
    """The smallest ε for that δ. noise_multiplier: standard deviation of the noise over the sensitivity."""
    _check(noise_multiplier, delta)
    if releases == 0:
        return 0.0
    low, high = 0.0, 1.0
    while gaussian_delta(noise_multiplier, releases, high) > delta:
        high *= 2
        if high > 650:
            return math.inf  # e^ε is no longer a number, and such an ε no privacy
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(noise_multiplier, releases, middle) > delta else (low, middle)
    return high


def composed_epsilon(noise_multipliers: Sequence[float], delta: float) -> float:
    """The smallest ε for that δ of one Gaussian release with each of these multipliers: what they tell together is what
    one tells with √(Σ 1/σ²) standard deviations of sensitivity. They must not depend on what was released before."""
    for multiplier in noise_multipliers:
        _check(multiplier, delta)
    together = math.fsum(1 / multiplier / multiplier for multiplier in noise_multipliers)
    if together in (0.0, math.inf):
        return together
    return gaussian_epsilon(1 / math.sqrt(together), 1, delta)


def sampled_epsilon(noise_multiplier: float, share: float, rounds: int, delta: float) -> float:
    """ε of so many rounds, each with every board taking part with probability `share`, on its own.

    An upper bound, the best over ORDERS: ε = RDP + ln((α − 1)/α) − (ln δ + ln α)/(α − 1) (Canonne, Kamath, Steinke,
    2020, proposition 12)."""
    _check(noise_multiplier, delta)
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not at {share}")
    if rounds == 0 or share == 0:
        return 0.0
    return max(0.0, min(_converted(rounds * sampled_rdp(noise_multiplier, share, a), a, delta) for a in ORDERS))


def sampled_rdp(noise_multiplier: float, share: float, order: int) -> float:
    """Rényi divergence of one round at a whole order α >= 2: ln(Σ_k C(α,k) (1−q)^{α−k} q^k e^{k(k−1)/2σ²}) / (α − 1)
    (equation 6 and section 3.3 of the paper)."""
    if share == 1:
        return order / (2 * noise_multiplier**2)
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(k + 1)
        - math.lgamma(order - k + 1)
        + (order - k) * math.log1p(-share)
        + k * math.log(share)
        + k * (k - 1) / (2 * noise_multiplier**2)
        for k in range(order + 1)
    ]
    top = max(terms)
    return (top + math.log(math.fsum(math.exp(term - top) for term in terms))) / (order - 1)


def _converted(rdp: float, order: int, delta: float) -> float:
    return rdp + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def _normal(value: float) -> float:
    """The normal distribution function, precise in its lower tail."""
    return math.erfc(-value / math.sqrt(2)) / 2


def _check(noise_multiplier: float, delta: float) -> None:
    if not noise_multiplier > 0:
        raise ValueError("without noise there is no finite epsilon; noise_multiplier must be above 0")
    if not 0 < delta < 1:
        raise ValueError(f"delta lies between 0 and 1, not at {delta}")
