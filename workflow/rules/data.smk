"""Downloads. A file placed at the output's path by hand is used as it is."""


localrules:
    download,


rule download:
    output:
        f"{SITE.data_dir}/{{dataset}}.npz",
    log:
        "logs/download-{dataset}.log",
    wildcard_constraints:
        dataset="|".join(plan.DOWNLOADED),
    retries: 2
    conda:
        "../../envs/environment.yaml"
    params:
        checksum=lambda wildcards: SITE.downloads[wildcards.dataset].checksum,
        # That it takes `output` keeps it out of what triggers: another address gives the same data.
        urls=lambda wildcards, output: [
            f"--url={url}" for url in SITE.downloads[wildcards.dataset].urls
        ],
    message:
        "{wildcards.dataset}: download and check."
    shell:
        "python -m sdnet data {wildcards.dataset} {params.urls:q} --checksum {params.checksum} --out {output:q} 2> {log}"
