"""What programs may tell whoever starts and stops machines, as ``ray.autoscaler``: see ``sdk``."""
