"""The confinement of foreign code by the kernel."""
