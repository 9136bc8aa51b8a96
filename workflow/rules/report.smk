"""Tables and figures, each written by a notebook, which papermill executes; and the verdict on the paper's claims."""

refuse_half_added_targets()

for target, reads in catalogue.READS.items():
    label = labels.TITLES[target].partition(":")[0]
    table = target in catalogue.TABLES
    page = f"{{root}}/notebooks/{target}.html"

    rule:
        name:
            target
        input:
            notebook=f"notebooks/{target}.ipynb",
            paper="config/paper_values.csv" if table else [],
            results=lambda wildcards, target=target, reads=reads: shown_files(
                wildcards, target, reads
            ),
        output:
            shown=(
                multiext(f"{{root}}/{target}", ".csv", ".md", ".tex")
                if table
                else [
                    f"{{root}}/{target}.pdf",
                    in_report(f"{{root}}/{target}.png", "Figures", label),
                ]
            ),
            checks=(
                multiext("{root}/diagnostics", ".csv", ".md", ".tex")
                if target == "table4"
                else []
            ),
            page=in_report(page, "Tables", label) if table else page,
        log:
            f"{{root}}/logs/{target}.log",
        conda:
            "../../envs/environment.yaml"
        resources:
            mem_mb=4000,
            runtime=60,
        message:
            f"{label} of {{wildcards.root}}."
        shell:
            "python -m sdnet notebook {input.notebook} --results {wildcards.root} --out {wildcards.root}/notebooks"
            " > {log} 2>&1"


rule claims:
    input:
        "config/claims.yaml",
        lambda wildcards: tables_and_figures(FOLDERS[wildcards.root]),
    output:
        verdicts=multiext("{root}/claims", ".csv", ".md"),
        effects="{root}/effects.csv",
    log:
        "{root}/logs/claims.log",
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "The paper's claims, judged by {wildcards.root}."
    shell:
        "python -m sdnet claims {wildcards.root} > {log} 2>&1"


rule report:
    input:
        "docs/differences.md",
        sorted(map(str, Path("workflow/report").glob("*.rst"))),
        lambda wildcards: tables_and_figures(FOLDERS[wildcards.root]),
        notebook="notebooks/report.ipynb",
        claims="{root}/claims.csv",
    output:
        page=in_report("{root}/report.html", "Verdict", "The paper's claims"),
    log:
        "{root}/logs/report.log",
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        preset=lambda wildcards: preset_of(wildcards).model_dump_json(),
    message:
        "The report of {wildcards.root}."
    shell:
        "python -m sdnet report {wildcards.root} > {log} 2>&1"


rule track:
    input:
        lambda wildcards: targets(FOLDERS[wildcards.root]),
    output:
        touch("{root}/logs/tracked"),
    log:
        "{root}/logs/track.log",
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "{wildcards.root}: what MLflow does not have yet."
    shell:
        "python -m sdnet track {wildcards.root} > {log} 2>&1"
