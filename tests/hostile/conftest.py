"""The profile `long` of Hypothesis, which must be known before tests are collected."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "long", deadline=None, max_examples=20_000, suppress_health_check=list(HealthCheck)
)
