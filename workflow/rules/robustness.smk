"""Under noise: accuracy against lambda (Figure 2), Algorithm 1 (Tables 2 and 3, Figure 3), a control for it, and stability
of the first layer."""


wildcard_constraints:
    noise="|".join(get_args(Noise)),


rule sweep:
    input:
        model=f"{RUN_FOLDER}/model.pt",
        images=test_images,
        noisy=noisy_images,
    output:
        counts=f"{RUN_FOLDER}/sweep-{{noise}}.csv",
        fates=f"{RUN_FOLDER}/sweep-{{noise}}.npz",
    log:
        "{root}/logs/sweep/{dataset}-{system}-seed{seed}-{noise}.log",
    conda:
        "../../envs/environment.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=noise_minutes,
    params:
        options=noise_options,
        official=official_noise,
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: accuracy against lambda, {wildcards.noise} noise."
    shell:
        "python -m sdnet sweep $(dirname {input.model}) --noise {wildcards.noise} {params.options} {params.official:q}"
        " --gpus {resources.gpu} > {log} 2>&1"


rule calibrate:
    input:
        model=f"{RUN_FOLDER}/model.pt",
        swept=f"{RUN_FOLDER}/sweep-{{noise}}.npz",
        images=test_images,
        noisy=noisy_images,
    output:
        calibration=f"{RUN_FOLDER}/calibration-{{noise}}.csv",
        peaks=f"{RUN_FOLDER}/peaks-{{noise}}.csv",
        lines=f"{RUN_FOLDER}/lines-{{noise}}.csv",
        adaptive=f"{RUN_FOLDER}/adaptive-{{noise}}.csv",
    log:
        "{root}/logs/calibrate/{dataset}-{system}-seed{seed}-{noise}.log",
    conda:
        "../../envs/environment.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=noise_minutes,
    params:
        options=noise_options,
        official=official_noise,
        calibration=lambda wildcards: arguments.calibration_options(
            run_of(wildcards), preset_of(wildcards)
        ),
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: Algorithm 1, {wildcards.noise} noise."
    shell:
        "python -m sdnet calibrate $(dirname {input.model}) --noise {wildcards.noise} {params.options} {params.official:q}"
        " {params.calibration} --gpus {resources.gpu} > {log} 2>&1"


rule renormalise:
    input:
        model=f"{RUN_FOLDER}/model.pt",
        calibrated=chosen_lambdas,
        images=test_images,
        noisy=noisy_images,
    output:
        f"{RUN_FOLDER}/renormalised-{{noise}}.csv",
    log:
        "{root}/logs/renormalise/{dataset}-{system}-seed{seed}-{noise}.log",
    conda:
        "../../envs/environment.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=noise_minutes,
    params:
        options=lambda wildcards: arguments.renormalise_options(
            run_of(wildcards), preset_of(wildcards)
        ),
        official=official_noise,
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: batch norms of the noisy images, {wildcards.noise} noise."
    shell:
        "python -m sdnet renormalise $(dirname {input.model}) --noise {wildcards.noise} {params.options} {params.official:q}"
        " --gpus {resources.gpu} > {log} 2>&1"


rule stability:
    input:
        model=f"{RUN_FOLDER}/model.pt",
        images=test_images,
        noisy=noisy_images,
    output:
        f"{RUN_FOLDER}/stability.csv",
    log:
        "{root}/logs/stability/{dataset}-{system}-seed{seed}.log",
    conda:
        "../../envs/environment.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=noise_minutes,
    params:
        noise=lambda wildcards: preset_of(wildcards).line_noise,
        options=noise_options,
        official=official_noise,
    message:
        "{wildcards.dataset}, {wildcards.system}, seed {wildcards.seed}: how far noise moves the first layer's output."
    shell:
        "python -m sdnet stability $(dirname {input.model}) --noise {params.noise} {params.options} {params.official:q}"
        " --gpus {resources.gpu} > {log} 2>&1"
