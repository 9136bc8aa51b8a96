"""From the codes of a trained network back to its images (Figures 1 and 4)."""


rule invert:
    input:
        model=f"{RUN_FOLDER}/model.pt",
        images=test_images,
    output:
        scores=f"{RUN_FOLDER}/inversion.csv",
        pictures=f"{RUN_FOLDER}/inversion.npz",
    log:
        "{root}/logs/invert/{dataset}-{system}-seed{seed}.log",
    conda:
        "../../envs/environment.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=60,
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: images from codes."
    shell:
        "python -m sdnet invert $(dirname {input.model}) --gpus {resources.gpu} > {log} 2>&1"
