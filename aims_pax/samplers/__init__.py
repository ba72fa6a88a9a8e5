"""Where structures come from, each source with the same shape: `sample(systems, n, rng)`."""

from aims_pax.samplers.base import Sample, Sampler, SamplingError, sampler

__all__ = ["Sample", "Sampler", "SamplingError", "sampler"]
