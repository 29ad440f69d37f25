"""Which examples hypothesis tries: in every run the same, so that what a run says is said of the code and not of luck.

`make fuzz` (pytest --hypothesis-profile=fresh) looks for new ones.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers


def load_profiles() -> None:
    """To be called before any test is loaded. No profile measures time: that of a busy computer means nothing."""
    settings.register_profile(
        "fixed",
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.register_profile(
        "fresh", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("fixed")
    _without_constants_of_what_is_loaded()


def _without_constants_of_what_is_loaded() -> None:
    """One draw in twenty is a constant from the sources of the modules that happen to be loaded, which depends on the
    tests that this process was given before. Hypothesis has no setting for it."""
    found = providers._get_local_constants
    none = providers.Constants()
    providers._get_local_constants = lambda: none if settings.default.derandomize else found()
