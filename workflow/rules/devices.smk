"""How many GPU jobs run side by side, and how many threads each job gets.

Snakemake only counts GPUs; each job leases its own (sdnet/experiments/devices.py). Without --resources gpu=N the count is
that of this machine, times `jobs_per_gpu`, so that no job starts only to wait. A cluster counts for itself.
"""


def _given(resource):
    """What the command line or the profile says of a resource, or None."""
    value = workflow.global_resources.get(resource)
    return getattr(value, "value", value)


# Snakemake gives every executor but the local one default resources, where the profile has none.
ON_CLUSTER = (
    workflow.remote_exec or workflow.resource_settings.default_resources is not None
)
GPUS = _given("gpu")
if GPUS is None and not ON_CLUSTER:
    try:
        GPUS = len(devices.visible()) * SITE.jobs_per_gpu
    except OSError as error:
        raise WorkflowError(str(error))
    workflow.register_resource("gpu", GPUS)

# On a cluster what each job asks for, the same on the node as where it was submitted; a profile can say set-threads.
CORES = 4 if ON_CLUSTER else workflow.cores
# With GPUs, each job an equal share of the cores; on a CPU a quarter, since small networks do not fill more.
THREADS = CORES if ON_CLUSTER else max(1, CORES // (GPUS or 4))
