"""From a resolved experiment to a trained network and what it scores."""


localrules:
    spec,


# The only way for a setting to reach a run: where the text stays the same, nothing is trained again.
rule spec:
    output:
        f"{RUN_FOLDER}/spec.json",
    log:
        "{root}/logs/spec/{dataset}-{system}-seed{seed}.log",
    # Before any training: `python -m sdnet status` takes the runs that have one for those that were asked for.
    priority: 2
    conda:
        "../../envs/environment.yaml"
    params:
        spec=lambda wildcards: run_of(wildcards).spec_json,
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: the resolved experiment."
    shell:
        "printf '%s\\n' {params.spec:q} > {output} 2> {log}"


rule train:
    input:
        spec=f"{RUN_FOLDER}/spec.json",
        images=lambda wildcards: ancient(training_images(wildcards)),
    output:
        model=f"{RUN_FOLDER}/model.pt",
        history=f"{RUN_FOLDER}/history.csv",
        environment=f"{RUN_FOLDER}/environment.json",
    log:
        "{root}/logs/train/{dataset}-{system}-seed{seed}.log",
    # Training, with its spec, goes first: it takes longest and most jobs wait for it, or in the end one core works alone.
    priority: 1
    conda:
        "../../envs/environment.yaml"
    threads: lambda wildcards: THREADS * run_of(wildcards).gpus
    resources:
        gpu=lambda wildcards: run_of(wildcards).gpus,
        # On several GPUs, which is to say on ImageNet: processes that read images beside each, and days (the paper's
        # rates give 17 hours for ResNet-18, 5 days for SDNet-34-All). What runs out of time goes on when started again.
        mem_mb=lambda wildcards: (
            8000 if run_of(wildcards).gpus == 1 else 16000 * run_of(wildcards).gpus
        ),
        runtime=lambda wildcards: 1440 if run_of(wildcards).gpus == 1 else 8640,
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: train."
    shell:
        "python -m sdnet train {input.spec} --gpus {resources.gpu} 2> {log}"


rule evaluate:
    input:
        model=f"{RUN_FOLDER}/model.pt",
        history=f"{RUN_FOLDER}/history.csv",
        images=test_images,
    output:
        accuracy=f"{RUN_FOLDER}/accuracy.csv",
        codes=f"{RUN_FOLDER}/codes.csv",
        dictionary=f"{RUN_FOLDER}/dictionary.csv",
    log:
        "{root}/logs/evaluate/{dataset}-{system}-seed{seed}.log",
    conda:
        "../../envs/environment.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=60,
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: test."
    shell:
        "python -m sdnet evaluate $(dirname {input.model}) --gpus {resources.gpu} > {log} 2>&1"
