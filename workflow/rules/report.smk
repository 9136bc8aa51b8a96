"""Tables and figures: each is written by a notebook, which papermill executes."""


def shown_runs(wildcards, target):
    return plan.runs_of(target, RUNS[FOLDERS[wildcards.root]])


def run_files(wildcards, target, name):
    """A result file of every run that a table or figure shows."""
    return [
        f"{wildcards.root}/runs/{run.name}/{name}"
        for run in shown_runs(wildcards, target)
    ]


rule table1:
    input:
        notebook="notebooks/table1.ipynb",
        paper="config/paper_values.csv",
        accuracy=lambda wildcards: run_files(wildcards, "table1", "accuracy.csv"),
        benchmark=lambda wildcards: sorted(
            {
                f"{wildcards.root}/benchmark/{run.dataset}.csv"
                for run in shown_runs(wildcards, "table1")
            }
        ),
    output:
        tables=multiext("{root}/table1", ".csv", ".md", ".tex"),
        page="{root}/notebooks/table1.html",
    log:
        executed="{root}/notebooks/table1.ipynb",
        text="{root}/logs/table1.log",
    conda:
        "../../envs/environment.yaml"
    message:
        "Table 1 of {wildcards.root}."
    shell:
        "python -m sdnet notebook {input.notebook} --results {wildcards.root} --out {wildcards.root}/notebooks"
        " > {log.text} 2>&1"


rule figure5:
    input:
        notebook="notebooks/figure5.ipynb",
        accuracy=lambda wildcards: run_files(wildcards, "figure5", "accuracy.csv"),
        dictionary=lambda wildcards: run_files(wildcards, "figure5", "dictionary.csv"),
    output:
        figures=multiext("{root}/figure5", ".pdf", ".png"),
        page="{root}/notebooks/figure5.html",
    log:
        executed="{root}/notebooks/figure5.ipynb",
        text="{root}/logs/figure5.log",
    conda:
        "../../envs/environment.yaml"
    message:
        "Figure 5 of {wildcards.root}."
    shell:
        "python -m sdnet notebook {input.notebook} --results {wildcards.root} --out {wildcards.root}/notebooks"
        " > {log.text} 2>&1"


use rule figure5 as figure6 with:
    input:
        notebook="notebooks/figure6.ipynb",
        accuracy=lambda wildcards: run_files(wildcards, "figure6", "accuracy.csv"),
        codes=lambda wildcards: run_files(wildcards, "figure6", "codes.csv"),
    output:
        figures=multiext("{root}/figure6", ".pdf", ".png"),
        page="{root}/notebooks/figure6.html",
    log:
        executed="{root}/notebooks/figure6.ipynb",
        text="{root}/logs/figure6.log",
    message:
        "Figure 6 of {wildcards.root}."
