"""How many GPU jobs run side by side, and how many threads each job gets.

Snakemake only counts GPUs; each job leases its own (sdnet/experiments/devices.py). Without --resources gpu=N the count is
that of this machine, so that no job starts only to wait. A cluster profile (--jobs) counts for itself.
"""

_asked = workflow.global_resources.get("gpu")
GPUS = getattr(_asked, "value", _asked)
_nodes = workflow.global_resources.get("_nodes")
if (
    GPUS is None
    and not workflow.remote_exec
    and getattr(_nodes, "value", _nodes) is None
):
    GPUS = len(devices.visible())
    workflow.register_resource("gpu", GPUS)

# With GPUs, each job an equal share of the cores; on a CPU a quarter, since small networks do not fill more.
THREADS = max(1, (workflow.cores or 1) // (GPUS or 4))
