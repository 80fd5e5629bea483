"""Which variants deserve to be shown: weights from what readers did, by Thompson sampling in batches.

A variant's rate of success has a Beta posterior; its weight is the probability that it is the best one, which is how
often Thompson sampling would draw it (Thompson 1933). What a reader has seen lately works less and tells less: the
recovering arms of Yancey and Settles (KDD 2020).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from math import exp, lgamma, log, sqrt

from msgspec import Struct

from stepwell.templates.outcomes import Outcome

TOTAL = 1000
"""What the weights of a template add up to."""
NUM_POINTS, NUM_SIGMAS = 200, 8.0
"""How finely a posterior is integrated, and how far from its mean."""


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may be chosen, and what counts."""

    min_shows: float = 100.0
    """A variant with fewer shows keeps at least an equal share: nobody is judged unseen."""
    excluded: Mapping[str, frozenset[int]] = {}
    """Variants by template that are not shown any more."""
    segment: str | None = None
    """Only the outcomes of this segment count; None: all."""
    drop: float = 0.5
    """How much of its effect a variant has lost for a reader who has just seen it: 0 to 1."""
    half_life_days: float = 15.0
    """After this time half of the loss is made good."""


class Arm(Struct, frozen=True):
    """What is known of a variant: effective shows and successes."""

    shows: float = 0.0
    successes: float = 0.0

    @property
    def posterior(self) -> tuple[float, float]:
        """The two parameters of its Beta distribution, from a flat prior."""
        return 1.0 + self.successes, 1.0 + self.shows - self.successes


def weights(
    outcomes: Iterable[Outcome], num_variants: Mapping[str, int], rules: Rules | None = None
) -> dict[str, list[int]]:
    """The bundle's `w`: for each template one integer a variant, adding up to TOTAL; all 0 where all are excluded.

    `num_variants` says which templates there are; outcomes of others, and of variants beyond, are left out.
    """
    rules = rules or Rules()
    known = tally(outcomes, rules)
    return {
        name: weigh([known[name, variant] for variant in range(num)], rules, rules.excluded.get(name, frozenset()))
        for name, num in num_variants.items()
    }


def tally(outcomes: Iterable[Outcome], rules: Rules) -> defaultdict[tuple[str, int], Arm]:
    """Sum up outcomes by template and variant; what was shown too soon after the last time counts less."""
    shows: defaultdict[tuple[str, int], float] = defaultdict(float)
    successes: defaultdict[tuple[str, int], float] = defaultdict(float)
    for each in outcomes:
        if rules.segment is None or each.segment == rules.segment:
            counts = novelty(each.days, rules)
            shows[each.template, each.variant] += counts * each.shown
            successes[each.template, each.variant] += counts * each.success
    return defaultdict(Arm, {at: Arm(shows[at], successes[at]) for at in shows})


def novelty(days: float | None, rules: Rules) -> float:
    """What is left of a variant's effect so many days after the same reader saw it; None: never seen, all of it."""
    return 1.0 if days is None else 1.0 - rules.drop * 0.5 ** (days / rules.half_life_days)


def recovered(weights: Sequence[int], seen_days: Mapping[int, float], rules: Rules | None = None) -> list[int]:
    """The weights for one reader, who saw some variants so many days ago: those count less, none goes to nothing."""
    rules = rules or Rules()
    return [
        max(1, round(weight * novelty(seen_days.get(variant), rules))) if weight else 0
        for variant, weight in enumerate(weights)
    ]


def weigh(arms: Sequence[Arm], rules: Rules, excluded: frozenset[int]) -> list[int]:
    """Integer weights of one template's variants: the chance of being best, and an equal share while little is known.

    Where every variant is excluded all weights are 0, and the template says nothing.
    """
    eligible = [variant for variant in range(len(arms)) if variant not in excluded]
    if not eligible:
        return [0] * len(arms)
    chances = best([arms[variant].posterior for variant in eligible])
    equal = 1.0 / len(eligible)
    unseen = [arms[variant].shows < rules.min_shows for variant in eligible]
    shares = explored(chances, [equal if new else 0.0 for new in unseen])
    found = dict(zip(eligible, rounded(shares, TOTAL), strict=True))
    return [found.get(variant, 0) for variant in range(len(arms))]


def explored(chances: Sequence[float], floors: Sequence[float]) -> list[float]:
    """Shares that are no lower than their floors; what that takes is taken from the others in proportion.

    >>> explored([0.9, 0.1, 0.0], [0.0, 0.0, 0.5])
    [0.45, 0.05, 0.5]
    """
    raised = [floor > chance for chance, floor in zip(chances, floors, strict=True)]
    while True:
        kept = sum(floor for floor, up in zip(floors, raised, strict=True) if up)
        others = sum(chance for chance, up in zip(chances, raised, strict=True) if not up)
        scale = (1.0 - kept) / others if others > 0 else 0.0
        shares = [floor if up else chance * scale for chance, floor, up in zip(chances, floors, raised, strict=True)]
        below = [not up and share < floor for share, floor, up in zip(shares, floors, raised, strict=True)]
        if not any(below):
            return shares if others > 0 else [share / kept for share in shares]
        raised = [up or low for up, low in zip(raised, below, strict=True)]


def best(posteriors: Sequence[tuple[float, float]]) -> list[float]:
    """For each Beta(a, b) the probability that its draw is the largest of all: ∫ fᵢ Π Fⱼ, by the trapezoid rule."""
    points = grid(posteriors)
    densities = [[density(x, a, b) for x in points] for a, b in posteriors]
    sums = [cumulated(points, each) for each in densities]
    below = [1.0] * len(points)
    for each in sums:
        below = [was * under for was, under in zip(below, each, strict=True)]
    chances = []
    for f, own in zip(densities, sums, strict=True):
        inside = [fx * (all_ / mine) if mine > 0 else 0.0 for fx, all_, mine in zip(f, below, own, strict=True)]
        chances.append(cumulative(points, inside)[-1])
    total = sum(chances)
    return [chance / total for chance in chances]


def grid(posteriors: Sequence[tuple[float, float]]) -> list[float]:
    """Points between 0 and 1, dense wherever one of the distributions has its mass."""
    points = {0.0, 1.0}
    for a, b in posteriors:
        mean, sigma = a / (a + b), sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
        low, high = max(0.0, mean - NUM_SIGMAS * sigma), min(1.0, mean + NUM_SIGMAS * sigma)
        points.update(low + (high - low) * place / NUM_POINTS for place in range(NUM_POINTS + 1))
    return sorted(points)


def density(x: float, a: float, b: float) -> float:
    """Beta's density; a and b are at least 1, so it is finite everywhere."""
    if (x <= 0.0 and a > 1.0) or (x >= 1.0 and b > 1.0):
        return 0.0
    scale = lgamma(a + b) - lgamma(a) - lgamma(b)
    left = (a - 1.0) * log(x) if a > 1.0 else 0.0
    right = (b - 1.0) * log(1.0 - x) if b > 1.0 else 0.0
    return exp(scale + left + right)


def cumulative(points: Sequence[float], values: Sequence[float]) -> list[float]:
    """The integral from the first point to each."""
    steps = ((x1 - x0) * (y1 + y0) / 2 for (x0, x1), (y0, y1) in zip(pairwise(points), pairwise(values), strict=True))
    return list(accumulate(steps, initial=0.0))


def cumulated(points: Sequence[float], values: Sequence[float]) -> list[float]:
    """The same for a density: it ends at 1, whatever the grid has left out."""
    sums = cumulative(points, values)
    return [each / sums[-1] for each in sums]


def rounded(shares: Sequence[float], total: int) -> list[int]:
    """Integers that add up to `total`, nearest to the shares (largest remainders)."""
    whole = [int(share * total) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda at: whole[at] - shares[at] * total)
    for at in by_rest[: total - sum(whole)]:
        whole[at] += 1
    return whole
