"""Accuracy under attack: the paper's protocol, attacks that know the defence, and checks of the attacks (Table 4)."""


rule attack:
    input:
        model=f"{RUN_FOLDER}/model.pt",
        line=fitted_line,
        images=test_images,
    output:
        counts=f"{RUN_FOLDER}/attack-paper.csv",
        fates=f"{RUN_FOLDER}/attack-paper.npz",
    log:
        "{root}/logs/attack/{dataset}-{system}-seed{seed}-paper.log",
    conda:
        "../../envs/environment.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=240,
    params:
        options=lambda wildcards: attack_options(wildcards, "attack"),
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: attacked as in the paper."
    shell:
        "python -m sdnet attack $(dirname {input.model}) {params.options} --gpus {resources.gpu} > {log} 2>&1"


rule attack_adaptive:
    input:
        model=f"{RUN_FOLDER}/model.pt",
        line=fitted_line,
        paper=f"{RUN_FOLDER}/attack-paper.csv",
        reference=undefended_images,
        images=test_images,
    output:
        counts=f"{RUN_FOLDER}/attack-adaptive.csv",
        fates=f"{RUN_FOLDER}/attack-adaptive.npz",
        adversarial=f"{RUN_FOLDER}/adversarial.npz",
    log:
        "{root}/logs/attack/{dataset}-{system}-seed{seed}-adaptive.log",
    conda:
        "../../envs/environment.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=720,
    params:
        options=lambda wildcards: attack_options(wildcards, "attack-adaptive"),
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: attacked by those who know the defence."
    shell:
        "python -m sdnet attack-adaptive $(dirname {input.model}) {params.options} --gpus {resources.gpu} > {log} 2>&1"


rule diagnose:
    input:
        model=f"{RUN_FOLDER}/model.pt",
        line=fitted_line,
        paper=f"{RUN_FOLDER}/attack-paper.csv",
        adversarial=f"{RUN_FOLDER}/adversarial.npz",
        reference=undefended_images,
        images=test_images,
    output:
        checks=f"{RUN_FOLDER}/diagnostics.csv",
    log:
        "{root}/logs/attack/{dataset}-{system}-seed{seed}-diagnostics.log",
    conda:
        "../../envs/environment.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=480,
    params:
        options=lambda wildcards: attack_options(wildcards, "diagnose"),
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: are the attacks good ones?"
    shell:
        "python -m sdnet diagnose $(dirname {input.model}) {params.options} --gpus {resources.gpu} > {log} 2>&1"
