"""Speed and memory, all networks of a data set in turns on one device."""


rule benchmark:
    input:
        specs=lambda wildcards: [
            f"{wildcards.root}/runs/{run.name}/spec.json"
            for run in first_seed(FOLDERS[wildcards.root])
            if run.dataset == wildcards.dataset and catalogue.has_speed(run.system)
        ],
    output:
        table="{root}/benchmark/{dataset}.csv",
    log:
        "{root}/logs/benchmark/{dataset}.log",
    conda:
        "../../envs/environment.yaml"
    # Alone on the machine, or other jobs are in the figures.
    threads: CORES
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=60,
    params:
        options=lambda wildcards: arguments.benchmark_options(
            wildcards.dataset, preset_of(wildcards)
        ),
    message:
        "{wildcards.dataset}: speed and memory of every network."
    shell:
        "python -m sdnet benchmark {input.specs} {params.options} --out {output.table} --gpus {resources.gpu}"
        " > {log} 2>&1"
