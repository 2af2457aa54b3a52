"""Emission of each gas as a function of pH: all that a plume tells about the fermentation.

For a recording at a pH level, with `g` one of the gases,

    log emission_g = PER_PH_g (pH - REFERENCE_PH) + common + own_g,
    common ~ N(0, COMMON_SCATTER^2),  own_g ~ N(0, GAS_SCATTER^2),

so both gases respond to pH monotonically, in opposite directions.

Known facts: low pH lowers the rate of CH4 production for hours after feeding, though not its daily total (Wenner et
al. 2017, doi:10.3168/jds.2016-12332), and a fermentation that shifts away from acetate leaves less hydrogen to
methanogens (Janssen 2010, doi:10.1016/j.anifeedsci.2010.07.002); acid drives CO2 out of a bicarbonate buffer, of which
in-vitro bottles are full. Assumptions: that both responses are log-linear between pH 5.0 and 6.5, their
size, and both scatters. The common scatter (how much a bottle ferments at all) makes one gas alone ambiguous; each
gas's own scatter leaves some doubt even when both are known exactly.
"""

import numpy as np

from fume_jax.schema import GASES

# Change of the logarithm of the emission rate per pH unit.
PER_PH = {"co2": -1.0, "ch4": 1.0}
REFERENCE_PH = 5.75
# Standard deviations of the logarithm of the emission: the scatter of each gas, and that common to both.
GAS_SCATTER, COMMON_SCATTER = 0.12, 0.4


def draw_emission(ph: float, rng: np.random.Generator) -> dict[str, float]:
    """Draws the emission rates of one recording, which are 1 at the reference pH without scatter."""
    common = rng.normal(0, COMMON_SCATTER)
    return {g: float(np.exp(PER_PH[g] * (ph - REFERENCE_PH) + common + rng.normal(0, GAS_SCATTER))) for g in GASES}


def emission_log_density(ph: float, emission: dict[str, float]) -> float:
    """Returns the log density of the logarithms of some gases' emission rates at a pH level."""
    difference = np.log(list(emission.values())) - [PER_PH[gas] * (ph - REFERENCE_PH) for gas in emission]
    # Inverse and determinant of the covariance own * I + common * ones have closed forms.
    n, own, common = len(emission), GAS_SCATTER**2, COMMON_SCATTER**2
    total = own + n * common
    distance = (difference @ difference - common / total * difference.sum() ** 2) / own
    return float(-0.5 * (distance + (n - 1) * np.log(own) + np.log(total) + n * np.log(2 * np.pi)))
