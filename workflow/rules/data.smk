"""Downloads. A file placed at the output's path by hand is used as it is."""


localrules:
    download,
    download_noisy,


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
        # Snakemake reruns nothing for a param that takes `output`: another address gives the same data.
        urls=lambda wildcards, output: [
            f"--url={url}" for url in SITE.downloads[wildcards.dataset].urls
        ],
    message:
        "{wildcards.dataset}: download and check."
    shell:
        "python -m sdnet data {wildcards.dataset} {params.urls:q} --checksum {params.checksum} --out {output:q} 2> {log}"


use rule download as download_noisy with:
    output:
        directory(f"{SITE.data_dir}/{{dataset}}"),
    wildcard_constraints:
        dataset="cifar10-c|cifar100-c",
    message:
        "{wildcards.dataset}: download, check and unpack."
