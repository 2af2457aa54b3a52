import os

# Before JAX starts: eight devices to shard over, and compiled programs shared by the test processes.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax

jax.config.update("jax_numpy_rank_promotion", "allow")
